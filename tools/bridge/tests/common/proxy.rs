//! Between a bridge and its server: loses what the server answers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Passes bytes on, both ways, of each connection to its port.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    is_mute: Arc<AtomicBool>,
    swallowed: Arc<AtomicU64>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    pub(crate) fn start(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it has one").port();
        let proxy = Self { port, is_mute: Arc::default(), swallowed: Arc::default(), streams: Arc::default() };
        let (is_mute, swallowed) = (Arc::clone(&proxy.is_mute), Arc::clone(&proxy.swallowed));
        let streams = Arc::clone(&proxy.streams);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { continue };
                let both = |stream: &TcpStream| stream.try_clone().expect("it can be cloned");
                streams.lock().expect("whole").extend([both(&client), both(&server)]);
                let (from_client, to_client, from_server) = (both(&client), client, both(&server));
                std::thread::spawn(move || pass(from_client, server, |_| true));
                let (is_mute, swallowed) = (Arc::clone(&is_mute), Arc::clone(&swallowed));
                std::thread::spawn(move || {
                    pass(from_server, to_client, |count| {
                        let is_mute = is_mute.load(Ordering::SeqCst);
                        swallowed.fetch_add(if is_mute { count as u64 } else { 0 }, Ordering::SeqCst);
                        !is_mute
                    });
                });
            }
        });
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// From now on, what the server answers is lost.
    pub(crate) fn mute(&self) {
        self.is_mute.store(true, Ordering::SeqCst);
    }

    /// Bytes that were lost.
    pub(crate) fn swallowed(&self) -> u64 {
        self.swallowed.load(Ordering::SeqCst)
    }

    /// Cuts all connections; new ones work.
    pub(crate) fn cut(&self) {
        self.is_mute.store(false, Ordering::SeqCst);
        for stream in self.streams.lock().expect("whole").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, may_pass: impl Fn(usize) -> bool) {
    let mut bytes = [0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if may_pass(count) && to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
