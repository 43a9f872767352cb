//! The requests to an etcd server: the few calls that are measured, over one connection that stays open.
//!
//! etcd uses gRPC. Its messages are declared here by hand, with only the fields that are read, so that no compiler for
//! its protocol files is needed; decoding skips the others. The field numbers are those of etcd's public `rpc.proto`
//! and `v3lock.proto`.
//!
//! A client belongs to one thread and runs a single-threaded executor in it: a call begins and ends on the caller's
//! thread, and no hand-over between threads is measured.

use super::Standing;
use crate::Failure;
use prost::Message;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tonic::Status;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
    #[prost(uint64, tag = "5")]
    log_index: u64,
    #[prost(uint64, tag = "7")]
    applied_index: u64,
}

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    ttl_s: i64,
}

#[derive(Clone, PartialEq, Message)]
struct LeaseGrantResponse {
    #[prost(int64, tag = "2")]
    id: i64,
}

#[derive(Clone, PartialEq, Message)]
struct LockRequest {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(int64, tag = "2")]
    lease: i64,
}

/// A held lock: the key that releases it.
#[derive(Clone, PartialEq, Message)]
struct LockResponse {
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct UnlockRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

/// A connection to one server, with the executor that drives it.
pub(crate) struct Client {
    // This field comes before the executor, because dropping it may need the executor.
    grpc: Grpc<Channel>,
    executor: Runtime,
}

impl Client {
    /// A connection that is opened at the first call, and again after it was lost.
    pub(crate) fn new(server: SocketAddr) -> Result<Self, Failure> {
        let unusable = |error: &dyn std::fmt::Display| Failure::Unusable(format!("no client for etcd: {error}"));
        let executor = Builder::new_current_thread().enable_all().build().map_err(|error| unusable(&error))?;
        let endpoint = Endpoint::from_shared(format!("http://{server}")).map_err(|error| unusable(&error))?;
        let channel = {
            let _inside = executor.enter();
            endpoint.connect_lazy()
        };
        Ok(Self { grpc: Grpc::new(channel), executor })
    }

    /// One call, given up after `patience`.
    fn call<Q, R>(&mut self, path: &'static str, request: Q, patience: Duration) -> Result<R, String>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        let grpc = &mut self.grpc;
        self.executor.block_on(async {
            let answer = async {
                grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
                let path = path.parse().expect("the paths are valid");
                grpc.unary(tonic::Request::new(request), path, ProstCodec::<Q, R>::default()).await
            };
            match tokio::time::timeout(patience, answer).await {
                Ok(answer) => answer.map(tonic::Response::into_inner).map_err(|status| status.to_string()),
                Err(_) => Err(format!("{path}: no answer within {patience:?}")),
            }
        })
    }

    /// The server's state, without a request to others.
    pub(crate) fn standing(&mut self, patience: Duration) -> Result<Standing, String> {
        let StatusResponse { header, leader, log_index, applied_index } =
            self.call("/etcdserverpb.Maintenance/Status", Empty {}, patience)?;
        let id = header.map_or(0, |header| header.member_id);
        Ok(Standing { id, leader, log_index, applied_index })
    }

    /// Writes a value that a majority must have before the server answers.
    pub(crate) fn put(&mut self, key: &str, value: &str, patience: Duration) -> Result<(), String> {
        let request = PutRequest { key: key.into(), value: value.into() };
        self.call("/etcdserverpb.KV/Put", request, patience).map(|Empty {}| ())
    }

    /// Begins a lease: a lock under it is released when the lease ends.
    pub(crate) fn lease(&mut self, ttl: Duration, patience: Duration) -> Result<i64, String> {
        let request = LeaseGrantRequest { ttl_s: ttl.as_secs() as i64 };
        self.call("/etcdserverpb.Lease/LeaseGrant", request, patience).map(|granted: LeaseGrantResponse| granted.id)
    }

    /// Waits for a lock; the returned key releases it.
    pub(crate) fn lock(&mut self, name: &str, lease: i64, patience: Duration) -> Result<Vec<u8>, String> {
        let request = LockRequest { name: name.into(), lease };
        self.call("/v3lockpb.Lock/Lock", request, patience).map(|held: LockResponse| held.key)
    }

    pub(crate) fn unlock(&mut self, key: Vec<u8>, patience: Duration) -> Result<(), String> {
        self.call("/v3lockpb.Lock/Unlock", UnlockRequest { key }, patience).map(|Empty {}| ())
    }
}
