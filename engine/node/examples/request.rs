//! Asks the nearest member, and gets its reply: beside the stream of messages, from the application of one process.

use bourdon::error::RequestError;
use bourdon::{Deadline, Delivery, Node, Subscribe, Subscription, To};
use std::error::Error;
use std::time::Duration;

/// Replies to requests until the node has ended.
fn serve(mut subscription: Subscription) {
    while let Ok(Some(delivery)) = subscription.next(Deadline::NEVER) {
        let Delivery::Request(request) = delivery else { continue };
        if request.payload() == b"es" {
            request.reply(b"4750.25").unwrap_or_else(|refusal| eprintln!("no reply was sent: {refusal}"));
        } // dropped without a reply, a request declines
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let group = Node::builder().group("request");
    let member = group.clone().open()?;
    let requests = member.subscribe(Subscribe::none().requests())?;
    member.join()?;
    let server = std::thread::spawn(move || serve(requests));

    let observer = group.observer().open()?;
    observer.join()?; // a request waits until a member is heard
    for question in [b"es", b"nq"] {
        match observer.request(To::Nearest, question, Duration::from_secs(5)) {
            Ok(reply) => println!(
                "{}: {}, after {} µs",
                String::from_utf8_lossy(question),
                String::from_utf8_lossy(reply.payload()),
                reply.rtt_ns() / 1_000
            ),
            Err(error @ RequestError::Declined { .. }) => println!("{}: {error}", String::from_utf8_lossy(question)),
            Err(error) => return Err(error.into()), // refused, or unanswered: then it may have been executed
        }
    }
    member.close(Duration::from_secs(5))?;
    server.join().expect("the server does not panic");
    Ok(())
}
