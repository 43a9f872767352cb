//! In place of the client of etcd, in a build without the feature `etcd`.
//!
//! The client needs libraries for gRPC, which nothing else here does, so they are not built unless they are asked for.
//! `etcd::version` refuses etcd as a peer before a cluster is started: a [`Client`] never exists.

use super::Standing;
use crate::Failure;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) struct Client(Infallible);

impl Client {
    pub(crate) fn new(server: SocketAddr) -> Result<Self, Failure> {
        Err(Failure::Unusable(format!("no client for etcd at {server} in this build")))
    }

    pub(crate) fn standing(&mut self, _: Duration) -> Result<Standing, String> {
        match self.0 {}
    }

    pub(crate) fn put(&mut self, _: &str, _: &str, _: Duration) -> Result<(), String> {
        match self.0 {}
    }

    pub(crate) fn lease(&mut self, _: Duration, _: Duration) -> Result<i64, String> {
        match self.0 {}
    }

    pub(crate) fn lock(&mut self, _: &str, _: i64, _: Duration) -> Result<Vec<u8>, String> {
        match self.0 {}
    }

    pub(crate) fn unlock(&mut self, _: Vec<u8>, _: Duration) -> Result<(), String> {
        match self.0 {}
    }
}
