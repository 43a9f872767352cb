//! What a node reports when its host changes under it: an interface that is gone or back, another address.

use bourdon_port::{HostChange, InterfaceLoss};
use bourdon_protocol::{Event, InterfaceName, NetworkLoss};

/// The event for a change.
pub(crate) fn event(change: &HostChange) -> Event {
    match change {
        HostChange::Lost { interface, loss } => {
            let why = match loss {
                InterfaceLoss::NoInterface => NetworkLoss::NoInterface,
                InterfaceLoss::Down => NetworkLoss::Down,
                InterfaceLoss::NoAddress => NetworkLoss::NoAddress,
                InterfaceLoss::AddressGone => NetworkLoss::AddressGone,
                _ => NetworkLoss::Refused,
            };
            Event::NetworkLost { interface: InterfaceName::new(interface), why }
        }
        HostChange::Bound { interface, address, before } => Event::NetworkBack {
            interface: InterfaceName::new(interface),
            address: (*address).into(),
            before: (*before).into(),
        },
    }
}
