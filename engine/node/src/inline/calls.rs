//! Messages and requests beside the stream, at a node that its application polls.

use super::InlineNode;
use crate::request::{Calling, Completion, Directs, Outbound, Request};
use crate::transport::NodePort;
use bourdon_engine::Engine;
use bourdon_protocol::{
    CallId, DirectAnswer, DirectContent, DirectKind, DirectMessage, DirectOutcome, DirectRequest, Refusal, To,
};
use bourdon_wire::{Epoch, Incarnation, Rank};

impl Calling for InlineNode {
    fn begin(&mut self, outbound: &Outbound<'_>, completion: Completion) -> Result<(), (Refusal, Completion)> {
        self.calls.begin(&mut self.engine, outbound, completion)
    }

    fn end_late(&mut self) {
        self.calls.end_late();
    }

    fn next_message(&mut self) -> Option<DirectMessage> {
        self.engine.poll_direct()
    }

    fn next_request(&mut self) -> Option<Request> {
        self.calls.next_request(&mut self.engine)
    }
}

impl Directs for Engine<NodePort> {
    fn send(&mut self, to: To<'_>, content: &DirectContent<'_>) -> Result<Option<CallId>, Refusal> {
        Engine::send(self, to, content)
    }

    fn limit_bytes(&self, kind: DirectKind) -> usize {
        self.process().direct_limit_bytes(kind)
    }

    fn poll_outcome(&mut self) -> Option<DirectOutcome> {
        Engine::poll_outcome(self)
    }

    fn poll_answer(&mut self) -> Option<DirectAnswer> {
        Engine::poll_answer(self)
    }

    fn poll_request(&mut self) -> Option<DirectRequest> {
        Engine::poll_request(self)
    }

    fn has_view(&self) -> bool {
        self.process().view().epoch != Epoch(0)
    }

    fn incarnation(&self, rank: Rank) -> Option<Incarnation> {
        self.process().view().members.iter().find(|member| member.rank == rank).map(|member| member.incarnation)
    }
}
