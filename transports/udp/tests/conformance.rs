//! Both mechanisms pass the suite, with and without offload.

use crate::common::world;
use bourdon_port::conformance_tests;

conformance_tests!(offload, Some(world(|_| {})));
conformance_tests!(one_by_one, Some(world(|options| options.offload = false)));
conformance_tests!(large_datagrams, Some(world(|options| options.datagram_max_bytes = 65_507)));
