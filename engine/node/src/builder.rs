//! Settings, one setter after the other, and then a node.
//!
//! The setters are those that most programs need; every other setting is reached by [`NodeBuilder::with`], under the
//! name that it has in a file. Nothing is checked before the node is opened: then all that is wrong is known at once.

use crate::config::{Flow, IdleStrategy, Order, Reliability, Role, Settings, Transport};
use crate::inline::InlineNode;
use crate::node_error::Error;
use crate::subscribe::Subscribe;
use crate::threaded::Node;
use std::net::SocketAddr;
use std::path::Path;

/// Makes a [`Node`] or an [`InlineNode`]; made by [`Node::builder`]. It can be cloned, and used again.
///
/// ```no_run
/// use bourdon::Node;
/// use bourdon::settings::{Order, Reliability};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let group = Node::builder().group("orders").members(3).order(Order::Total).reliability(Reliability::Uniform);
/// let node = group.clone().rank(0).with(|settings| settings.threads.core = Some(2)).join()?;
/// let observer = group.observer().open()?; // subscribe, then join
/// # let _ = (node, observer);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "open, join or inline makes a node"]
pub struct NodeBuilder {
    settings: Settings,
}

impl NodeBuilder {
    /// The group's name; "default" by default. Every process of the group gives the same one.
    pub fn group(self, name: &str) -> Self {
        self.with(|settings| settings.group.name = name.to_owned())
    }

    /// The group's multicast address and port; 239.255.74.1:7401 by default. Every process gives the same one.
    pub fn address(self, address: SocketAddr) -> Self {
        self.with(|settings| settings.group.address = address)
    }

    /// How many members the group has, 1 to 64; 1 by default. Every process gives the same number.
    pub fn members(self, members: u16) -> Self {
        self.with(|settings| settings.group.members = members)
    }

    /// This process is the member of this rank, from 0; the default is 0. No other process has it.
    pub fn rank(self, rank: u16) -> Self {
        self.with(|settings| (settings.process.role, settings.process.rank) = (Role::Member, rank))
    }

    /// This process observes: it delivers what the members publish, and they wait for it only if it
    /// [gates](Flow::Gating).
    pub fn observer(self) -> Self {
        self.with(|settings| settings.process.role = Role::Observer)
    }

    /// This process is a client: in no view, it publishes through a member, and sends requests. A [`Node`] only.
    pub fn client(self) -> Self {
        self.with(|settings| settings.process.role = Role::Client)
    }

    /// In which order all processes deliver; [`Order::Total`] by default. Every process gives the same one.
    pub fn order(self, order: Order) -> Self {
        self.with(|settings| settings.group.order = order)
    }

    /// What is delivered although messages are lost and processes fail; [`Reliability::Reliable`] by default. Every
    /// process gives the same one.
    pub fn reliability(self, reliability: Reliability) -> Self {
        self.with(|settings| settings.group.reliability = reliability)
    }

    /// Whether members wait for this observer; [`Flow::Free`] by default: they do not.
    pub fn flow(self, flow: Flow) -> Self {
        self.with(|settings| settings.flow.mode = flow)
    }

    /// The interface, by its name; "lo" by default.
    pub fn interface(self, interface: &str) -> Self {
        self.with(|settings| settings.network.interface = interface.to_owned())
    }

    /// How datagrams travel; [`Transport::Udp`] by default.
    pub fn transport(self, transport: Transport) -> Self {
        self.with(|settings| settings.network.transport = transport)
    }

    /// The members' addresses, by rank, for [`Transport::Tcp`] and [`Transport::Auto`].
    pub fn peers(self, peers: &[SocketAddr]) -> Self {
        self.with(|settings| settings.network.peers = peers.to_vec())
    }

    /// What the data agents do while there is nothing to do: spin for the lowest latency, or rest.
    pub fn idle(self, idle: IdleStrategy) -> Self {
        self.with(|settings| settings.threads.idle = idle)
    }

    /// Changes any setting.
    ///
    /// ```
    /// use bourdon::Node;
    ///
    /// let builder = Node::builder().with(|settings| settings.limits.max_message_bytes = 64 << 10);
    /// assert_eq!(builder.settings().limits.max_message_bytes, 65_536);
    /// ```
    pub fn with<T>(mut self, change: impl FnOnce(&mut Settings) -> T) -> Self {
        change(&mut self.settings);
        self
    }

    /// Reads all settings from a TOML file; those set before are forgotten.
    ///
    /// # Errors
    /// If it can't be read, or has a key or a value that is wrong.
    pub fn file(self, path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self { settings: Settings::load(path.as_ref())? })
    }

    /// Reads all settings from TOML text; those set before are forgotten.
    ///
    /// ```
    /// use bourdon::Node;
    ///
    /// let builder = Node::builder().toml("[group]\nmembers = 3")?.rank(2);
    /// assert!(Node::builder().toml("[group]\nmembres = 3").is_err());
    /// # let _ = builder;
    /// # Ok::<(), bourdon::Error>(())
    /// ```
    ///
    /// # Errors
    /// If it has a key or a value that is wrong.
    pub fn toml(self, text: &str) -> Result<Self, Error> {
        Ok(Self { settings: text.parse()? })
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Opens a node with threads of its own, which is still to [join](Node::join): subscribe before, and nothing is
    /// missed.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(builder: &NodeBuilder) -> Result<(), Error> {
    /// let node = builder.open()?;
    /// let trades = node.subscribe("md.*.trades")?; // misses nothing
    /// node.join()?;
    /// # let _ = trades;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Node::open`].
    pub fn open(&self) -> Result<Node, Error> {
        Node::open(&self.settings)
    }

    /// Opens a node with threads of its own, and joins the group.
    ///
    /// # Errors
    /// As [`Node::open`].
    pub fn join(&self) -> Result<Node, Error> {
        let node = self.open()?;
        node.join()?;
        Ok(node)
    }

    /// Joins the group with a node that the caller's loop polls. It hands out the messages of these topics.
    ///
    /// ```
    /// # use bourdon::*;
    /// # fn show(builder: &NodeBuilder) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut node = builder.inline(Subscribe::to("md.**").and("orders"))?;
    /// node.poll(64, |delivery| println!("{delivery}"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If a pattern is none, the settings contradict themselves, or the network can't be used.
    pub fn inline(&self, subscribe: impl Into<Subscribe>) -> Result<InlineNode, Error> {
        InlineNode::join_to(&self.settings, &subscribe.into())
    }
}

impl From<Settings> for NodeBuilder {
    fn from(settings: Settings) -> Self {
        Self { settings }
    }
}

impl Node {
    /// Begins with the default settings; each setter names its default.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }
}
