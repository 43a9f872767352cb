//! The bypass passes the suite, each port on a host of its own.

use crate::common::world;
use bourdon_port::conformance_tests;

conformance_tests!(ipv4, world("239.255.76.1:7601", false));
conformance_tests!(ipv6, world("[ff15::7601]:7602", false));
conformance_tests!(generic, world("239.255.76.1:7603", true));
