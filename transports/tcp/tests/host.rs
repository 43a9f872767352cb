//! Changes of the host under a port that uses multicast and a mesh.
//!
//! Each test has a network namespace of its own, so it takes root; without, it is skipped and prints it.

use crate::network::{enter_namespace, fresh_group};
use bourdon_port::conformance::change_of;
use bourdon_port::{HostChange, InterfaceLoss};
use bourdon_tcp::{AutoPort, TcpOptions};
use bourdon_udp::UdpOptions;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;

const MADE: [&str; 4] = [
    "link add left type veth peer name right",
    "link set right up",
    "link set left up",
    "addr add 192.0.2.1/24 dev left",
];

fn remove(interface: &str) {
    assert!(Command::new("ip").args(["link", "del", interface]).status().expect("ip runs").success());
}

/// Opens a port with multicast on `left` and the mesh at this address, in a namespace, and removes `left`.
fn without_left(mesh: &'static str, is_cut_off: bool) {
    let run = move || {
        if enter_namespace(&MADE) {
            let mesh = TcpOptions::new(SocketAddr::new(mesh.parse().expect("an address"), 0));
            let multicast = UdpOptions { interface: "left".to_owned(), ..UdpOptions::new(fresh_group()) };
            let (mut port, refused) = AutoPort::open(&multicast, &mesh).expect("a port");
            assert!(refused.is_none() && !port.is_cut_off());
            remove("left");
            let lost = |loss| HostChange::Lost { interface: "left".to_owned(), loss };
            assert_eq!(change_of(&mut port), lost(InterfaceLoss::NoInterface));
            if is_cut_off {
                assert_eq!(change_of(&mut port), lost(InterfaceLoss::AddressGone));
            }
            assert_eq!(port.is_cut_off(), is_cut_off);
        }
    };
    thread::spawn(run).join().expect("the test passes");
}

#[test]
fn a_mesh_on_another_interface_than_multicast_s_goes_on_without_it() {
    without_left("127.0.0.1", false);
}

#[test]
fn a_mesh_on_the_interface_that_is_gone_is_cut_off() {
    without_left("192.0.2.1", true);
}
