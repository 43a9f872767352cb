//! Calls whose datagrams a test brings by hand.

use super::*;
use std::collections::VecDeque;

const BY: Rank = Rank(1);

/// A process that sends nothing: the tests bring what comes back.
#[derive(Default)]
struct Fake {
    sent: Vec<DirectKind>,
    outcomes: VecDeque<DirectOutcome>,
    answers: VecDeque<DirectAnswer>,
    incarnation: Option<Incarnation>,
    has_no_view: bool,
    is_full: bool,
    /// It has no room for answers to this address.
    full: Option<Address>,
    /// Where its requests come from.
    asks: Address,
}

impl Directs for Fake {
    fn send(&mut self, to: To<'_>, content: &DirectContent<'_>) -> Result<Option<CallId>, Refusal> {
        let is_full = matches!(to, To::Address(address) if Some(address) == self.full);
        if self.is_full || is_full {
            return Err(Refusal::TooMany { limit: 32 });
        }
        self.sent.push(content.kind);
        Ok(Some(CallId(self.sent.len() as u64)))
    }

    fn limit_bytes(&self, _kind: DirectKind) -> usize {
        100
    }

    fn poll_outcome(&mut self) -> Option<DirectOutcome> {
        self.outcomes.pop_front()
    }

    fn poll_answer(&mut self) -> Option<DirectAnswer> {
        self.answers.pop_front()
    }

    fn poll_request(&mut self) -> Option<DirectRequest> {
        let address = self.asks;
        Some(DirectRequest { call: 7, from: BY, address, patience_ns: u64::MAX, payload: b"es".to_vec() })
    }

    fn has_view(&self) -> bool {
        !self.has_no_view
    }

    fn incarnation(&self, _rank: Rank) -> Option<Incarnation> {
        self.incarnation
    }
}

impl Fake {
    /// Begins a request. Returns its number too.
    fn ask(&mut self, calls: &mut Calls) -> (Call, u64) {
        let outbound = Outbound {
            to: To::Nearest,
            payload: b"",
            is_request: true,
            deadline: Deadline::NEVER,
            awaits_receiver: false,
        };
        let (completion, call) = Completion::new(Deadline::NEVER, None);
        assert!(calls.begin(self, &outbound, completion).is_ok());
        let Some(DirectKind::Request(number)) = self.sent.last() else { panic!("{:?}", self.sent) };
        (call, *number)
    }

    fn answer(&mut self, call: u64, payload: &[u8]) {
        let (address, payload) = (Address::default(), Some(payload.to_vec()));
        self.answers.push_back(DirectAnswer { call, from: BY, address, payload });
    }

    fn take(&mut self, call: u64) {
        let (call, address) = (CallId(call), Address::default());
        self.outcomes.push_back(DirectOutcome::Done { call, by: BY, address, rtt_ns: 5, attempts: 2 });
    }
}

fn payload(call: &mut Call) -> Vec<u8> {
    call.try_reply().expect("it is over").expect("a reply").into_payload()
}

#[test]
fn replies_find_their_requests_in_any_order_once_and_late_ones_none() {
    let (mut node, mut calls) = (Fake::default(), Calls::new(|| {}));
    let ((mut first, one), (mut second, two)) = (node.ask(&mut calls), node.ask(&mut calls));
    assert_eq!(two, one.wrapping_add(1));
    node.take(1); // the acknowledgement of the second one was lost
    node.answer(one.wrapping_sub(1), b"of a request before");
    node.answer(two, b"second");
    node.answer(two, b"again");
    node.answer(one, b"first");
    assert_eq!(calls.tend(&mut node), 5);
    assert_eq!((payload(&mut first), payload(&mut second)), (b"first".to_vec(), b"second".to_vec()));
    assert!(!calls.is_waiting() && first.try_reply().is_none());
    node.take(2);
    assert_eq!(calls.tend(&mut node), 1, "it is no call's any more");
}

#[test]
fn numbers_begin_at_another_place_in_each_process() {
    let numbers = [0; 2].map(|_| Fake::default().ask(&mut Calls::new(|| {})).1);
    assert_ne!(numbers[0], numbers[1]);
}

#[test]
fn a_request_whose_taker_is_another_incarnation_now_is_over() {
    let (mut node, mut calls) = (Fake { incarnation: Some(Incarnation(1)), ..Fake::default() }, Calls::new(|| {}));
    let (mut call, _) = node.ask(&mut calls);
    node.take(1);
    calls.tend(&mut node);
    calls.end_gone(&node);
    assert_eq!(call.try_reply(), None);
    (node.incarnation, node.has_no_view) = (None, true);
    calls.end_gone(&node);
    assert_eq!(call.try_reply(), None, "this process was removed: its taker may be there");
    (node.incarnation, node.has_no_view) = (Some(Incarnation(2)), false);
    calls.end_gone(&node);
    let why = Some(DirectFailure::Gone);
    let gone = RequestError::Unanswered { taken_by: Some(BY), why, attempts: 2 };
    assert_eq!(call.try_reply(), Some(Err(gone)));
}

#[test]
fn answers_wait_for_room_and_a_dropped_request_declines() {
    let (mut node, mut calls) = (Fake { is_full: true, ..Fake::default() }, Calls::new(|| {}));
    calls.next_request(&mut node).expect("there is one").reply(b"4750.25").expect("there is room");
    drop(calls.next_request(&mut node));
    assert_eq!((calls.tend(&mut node), calls.has_answers()), (0, true));
    node.is_full = false;
    assert_eq!((calls.tend(&mut node), calls.has_answers()), (2, false));
    assert_eq!(node.sent, [DirectKind::Reply(7), DirectKind::Decline(7)]);
    let request = calls.next_request(&mut node).expect("there is one");
    for _ in 0..ANSWERS_MAX {
        drop(calls.next_request(&mut node));
    }
    assert_eq!(request.reply(b""), Err(Refusal::TooMany { limit: ANSWERS_MAX }));
    calls.tend(&mut node);
    assert_eq!((request.reply(b""), request.reply(b"")), (Ok(()), Err(Refusal::Closed)));
    drop(request);
    node.sent.clear();
    calls.tend(&mut node);
    assert_eq!(node.sent, [DirectKind::Reply(7)], "it was answered");
}

#[test]
fn answers_to_others_pass_those_that_wait_and_only_new_ones_keep_the_thread_awake() {
    let silent = std::net::SocketAddr::from(([192, 0, 2, 7], 7)).into();
    let (mut node, mut calls) = (Fake { full: Some(silent), asks: silent, ..Fake::default() }, Calls::new(|| {}));
    (0..3).for_each(|_| drop(calls.next_request(&mut node)));
    node.asks = Address::default();
    calls.next_request(&mut node).expect("there is one").reply(b"4750.25").expect("there is room");
    assert!(calls.has_new_answers());
    assert_eq!((calls.tend(&mut node), &node.sent[..]), (1, &[DirectKind::Reply(7)][..]));
    assert!(calls.has_answers() && !calls.has_new_answers());
    node.full = None;
    assert_eq!((calls.tend(&mut node), calls.has_answers()), (3, false));
}

#[test]
fn no_more_calls_wait_than_there_is_room_for_but_for_those_that_are_late() {
    let (mut node, mut calls) = (Fake::default(), Calls::new(|| {}));
    let mut begin = |deadline: Deadline| {
        let outbound = Outbound { to: To::Nearest, payload: b"", is_request: true, deadline, awaits_receiver: false };
        calls.begin(&mut node, &outbound, Completion::new(deadline, None).0).map_err(|(refusal, _)| refusal)
    };
    begin(Duration::ZERO.into()).expect("there is room");
    (1..CALLS_MAX).for_each(|_| begin(Deadline::NEVER).expect("there is room"));
    begin(Deadline::NEVER).expect("one is late");
    assert_eq!(begin(Deadline::NEVER), Err(Refusal::TooMany { limit: CALLS_MAX }));
    let message = Outbound {
        to: To::Nearest,
        payload: b"",
        is_request: false,
        deadline: Deadline::NEVER,
        awaits_receiver: false,
    };
    assert!(calls.begin(&mut node, &message, Completion::new(Deadline::NEVER, None).0).is_ok());
}
