//! Hostile input: what any bytes at all can do to a process, as functions of bytes.
//!
//! A fuzzer that must guess a checksum and eight headers never gets past them. So the bytes are read as a script: which
//! datagrams a stranger sends, with headers and frames it makes up and a correct checksum, and what the process does in
//! between. The fuzz targets in `engine/fuzz` and an ordinary test that replays their corpus call the same functions.
//!
//! Invariants: no panic, no step without end, every queue within its bound, no more bytes sent than a window and an
//! outbox hold. To an address that no heartbeat announced, at most three bytes are sent for each byte received.

use crate::plan::GROUP;
use bourdon_protocol::{Client, Config, Destination, Limits, MemoryUse, Order, Outgoing, Process, Role, Start};
use bourdon_wire::{
    Address, CONTROL_CHANNEL, ChannelId, ClientId, Datagram, DatagramHeader, DatagramNumber, Epoch, FrameHeader,
    HEADER_BYTES, Incarnation, InstanceId, Instant, Kind, OrderNumber, Rank, Sequence, TopicId, VERSION, checksum,
    records, seal,
};
use std::net::SocketAddr;
use zerocopy::IntoBytes;

const MTU_BYTES: usize = 1280;
const LOG_SLOTS: usize = 16;
const MEMBERS: u16 = 3;
/// A longer script adds nothing.
const OPERATIONS_MAX: usize = 400;
/// Timers that may be due at one moment: every stream's whole log, in requests of 64 ranges, and some.
const TIMERS_MAX: usize = 64;

/// Reads a script byte by byte; zeroes when it has ended.
struct Script<'a> {
    rest: &'a [u8],
    /// The fingerprint that makes a heartbeat acceptable.
    fingerprint: u64,
}

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    /// A small number in one byte, any number behind 255.
    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
            small => u64::from(small),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte());
        (0..length).map(|_| self.byte()).collect()
    }

    /// A datagram with a correct checksum; the script gives the rest.
    fn datagram(&mut self) -> Vec<u8> {
        let (rank, channel) = (self.byte(), self.byte());
        let channel = if channel & 1 == 0 { ChannelId(u16::from(channel >> 1)) } else { CONTROL_CHANNEL };
        let rank = if rank < 250 { Rank(u16::from(rank)) } else { Rank(0xFF00 | u16::from(rank)) };
        let incarnation = Incarnation(u32::from(self.byte() >> 6));
        let header = DatagramHeader::new(GROUP, InstanceId(1), Epoch(1), rank, incarnation, channel);
        let (number, sequence, order) = (self.number(), self.number(), self.number());
        let header = header.at(DatagramNumber(number & 0xFFFF_FFFF_FFFF), Sequence(sequence), OrderNumber(order));
        let (frames, padding) = (self.byte() % 8, usize::from(self.byte() % 8));
        let mut datagram = vec![0; HEADER_BYTES];
        for _ in 0..frames {
            let (topic, low, high) = (self.byte(), self.byte(), self.byte());
            let body = self.body(low & 0x0F);
            let mut head = FrameHeader::new(body.len(), TopicId(u16::from(topic)), Kind::Data, 0).as_bytes().to_vec();
            head[6..8].copy_from_slice(&[low, high]);
            datagram.extend(head);
            datagram.extend(body);
        }
        let length = datagram.len() - HEADER_BYTES;
        datagram.resize(datagram.len() + padding, 0);
        seal(&mut datagram, header, u16::from(frames), length, 0);
        datagram
    }

    /// A frame's body. Fields that must agree with the process, or with each other, are filled in: the bytes would
    /// never hit them.
    fn body(&mut self, kind: u8) -> Vec<u8> {
        match kind {
            _ if kind == Kind::Heartbeat as u8 => self.heartbeat(),
            _ if kind == Kind::Nak as u8 => {
                let (rank, cookie) = (u16::from(self.byte()).into(), self.number().into());
                let nak = records::Nak { rank, channel: 0.into(), reply_to: stranger(), cookie, ranges: 1.into() };
                let range = records::NakRange::new(DatagramNumber(self.number()), self.number() as u32);
                [nak.as_bytes(), range.as_bytes()].concat()
            }
            _ if kind == Kind::ViewAsk as u8 => {
                records::ViewAsk { reply_to: stranger(), nonce: 0.into(), cookie: self.number().into() }
                    .as_bytes()
                    .to_vec()
            }
            _ if kind == Kind::Transfer as u8 => self.transfer(),
            _ if kind == Kind::Ballot as u8 => self.ballot(),
            _ => self.bytes(),
        }
    }

    fn transfer(&mut self) -> Vec<u8> {
        let record = records::Transfer {
            step: u16::from(self.byte() % 5).into(),
            donor: u16::from(self.byte() % 4).into(),
            ticket: u32::from(self.byte()).into(),
            reply_to: stranger(),
            part: (self.number() as u32).into(),
            count: (self.number() as u32).into(),
            total_bytes: self.number().into(),
            part_bytes: (self.number() as u32).into(),
            checksum: 0.into(),
            cookie: self.number().into(),
        };
        [record.as_bytes(), &self.bytes()].concat()
    }

    /// A step of a ballot whose lists fit the group, with numbers of any size.
    fn ballot(&mut self) -> Vec<u8> {
        let (step, members) = (self.byte() % 7, self.byte() % (MEMBERS as u8 + 1));
        let [ballot, accepted, phase, cut_phase] = [0; 4].map(|_: u8| self.number().into());
        let record = records::BallotStep {
            step,
            members,
            held: MEMBERS as u8,
            held_ranges: 0,
            cut: MEMBERS as u8,
            cut_ranges: 0,
            sequencer: self.byte() % 4,
            reserved: 0,
            ballot,
            accepted,
            phase,
            cut_phase,
            leavers: self.number().into(),
            birth: self.number().into(),
        };
        let mut bytes = record.as_bytes().to_vec();
        for rank in 0..u16::from(members) {
            let incarnation = u32::from(self.byte() >> 6).into();
            bytes.extend(records::MemberEntry { rank: rank.into(), incarnation }.as_bytes());
        }
        for _ in 0..2 * MEMBERS {
            bytes.extend(records::End::new(DatagramNumber(self.number())).as_bytes());
        }
        bytes
    }

    fn heartbeat(&mut self) -> Vec<u8> {
        let record = records::Heartbeat {
            next_number: self.number().into(),
            oldest_number: self.number().into(),
            next_sequence: self.number().into(),
            next_order: self.number().into(),
            configuration: self.fingerprint.wrapping_add(u64::from(self.byte() & 1)).into(),
            window_bytes: (self.number() as u32).into(),
            flags: u16::from(self.byte()).into(),
            address: address(u16::from(self.byte())),
            heard_from: u64::from(self.byte()).into(),
            reached_phase: self.number().into(),
            link_port: 0.into(),
            first_sequence: self.number().into(),
            birth: u64::from(self.byte() & 3).into(),
            members: u64::from(self.byte() & 7).into(),
            version_low: VERSION,
            version_high: VERSION,
        };
        record.as_bytes().to_vec()
    }
}

fn address(port: u16) -> Address {
    SocketAddr::from(([10, 0, 0, 1], port)).into()
}

/// An address that no heartbeat of a script announces.
fn stranger() -> Address {
    address(60_000)
}

fn config(kind: u8) -> Config {
    let role = if kind & 1 == 0 { Role::Member(Rank(1)) } else { Role::Observer };
    let mut config = Config::new(GROUP, MEMBERS, role);
    config.order = [Order::Total, Order::Causal, Order::Fifo, Order::Unordered][usize::from(kind >> 1 & 3)];
    config.start = if kind & 8 == 0 { Start::Live } else { Start::Oldest };
    config.sequencer = Rank(u16::from(kind >> 4 & 1));
    config.address = address(999);
    config.limits = Limits {
        mtu_bytes: MTU_BYTES,
        log_bytes: LOG_SLOTS * MTU_BYTES,
        receive_log_bytes: LOG_SLOTS * MTU_BYTES,
        window_bytes: LOG_SLOTS * MTU_BYTES,
        max_message_bytes: 4000,
        receivers: if kind & 32 == 0 { 3 } else { 30 },
        repairs_per_s: 1000,
        prefault: false,
        max_snapshot_bytes: 1 << 16,
        stored_view_bytes: 1 << 20,
    };
    config
}

/// Whatever a datagram contains: it is walked to the end or refused.
pub fn datagram(data: &[u8]) {
    let mut resealed = data.to_vec();
    if resealed.len() >= HEADER_BYTES {
        resealed[..4].copy_from_slice(b"Bd\x02\0");
        resealed[8..12].copy_from_slice(&GROUP.0.to_le_bytes());
        let sum = checksum(&resealed);
        resealed[4..8].copy_from_slice(&sum.to_le_bytes());
    }
    for bytes in [data, &resealed] {
        let Ok(datagram) = Datagram::parse(bytes, GROUP) else { continue };
        let (mut frames, mut messages) = (0, 0);
        for frame in datagram.frames() {
            frames += 1;
            messages += u16::from(frame.ends_message());
            if frame.kind() == Some(Kind::Data) {
                assert!(frame.data().is_some(), "a checked frame can be parsed");
            }
        }
        assert_eq!((frames, messages), (datagram.header.count(), datagram.messages));
    }
}

/// A process among strangers.
pub fn process(data: &[u8]) {
    let mut script = Script { rest: data, fingerprint: 0 };
    let config = config(script.byte());
    script.fingerprint = config.fingerprint();
    let mut process = Process::new(Instant(0), config).expect("the configuration is right");
    let (mut now, mut bytes_in, mut bytes_out) = (Instant(0), 0, 0);
    for _ in 0..OPERATIONS_MAX {
        if script.rest.is_empty() {
            break;
        }
        match script.byte() % 8 {
            0..4 => {
                let datagram = script.datagram();
                bytes_in += datagram.len();
                process.on_datagram(now, &datagram, None);
            }
            4 => now = now + u64::from(script.byte()) * 100_000,
            5 => {
                let length = usize::from(script.byte()) * 16;
                let _ = process.try_publish(now, &Outgoing::default(), &vec![7; length]);
            }
            6 => deliver(&mut process, now, 1 + usize::from(script.byte())),
            _ => bytes_out += transmit(&mut process, now, usize::from(script.byte())),
        }
        assert!(bytes_out <= 3 * bytes_in, "{bytes_out} bytes to a stranger's address for {bytes_in}");
        keep_time(&mut process, now);
        assert_bounded(&process.memory_use());
    }
    deliver(&mut process, now, usize::MAX);
    bytes_out += transmit(&mut process, now, usize::MAX);
    assert!(bytes_out <= 3 * bytes_in, "{bytes_out} bytes to a stranger's address for {bytes_in}");
}

fn deliver(process: &mut Process, now: Instant, limit: usize) {
    process.deliver(now, limit, |delivery| {
        // One frame may be longer than a message may be, as long as it fits a datagram.
        assert!(delivery.payload.len() <= 4000 && delivery.sender.0 < MEMBERS);
    });
    while process.poll_event().is_some() {}
}

/// Sends what is due. Returns how many bytes of it go to the stranger's address.
fn transmit(process: &mut Process, now: Instant, most: usize) -> usize {
    let (mut taken_bytes, mut to_stranger) = (0, 0);
    process.transmit(now, |to, bytes, segment_bytes| {
        let taken = bytes.len().div_ceil(segment_bytes).min(most);
        taken_bytes += bytes.len();
        to_stranger += if to == Destination::Peer(stranger()) && taken > 0 { bytes.len() } else { 0 };
        taken
    });
    assert!(taken_bytes <= (1 << 20) + 2 * LOG_SLOTS * MTU_BYTES, "{taken_bytes} bytes at once");
    to_stranger
}

fn keep_time(process: &mut Process, now: Instant) {
    for _ in 0..TIMERS_MAX {
        if process.next_deadline() > now {
            return;
        }
        process.on_timer(now);
    }
    panic!("timers stay due after {TIMERS_MAX} calls");
}

fn assert_bounded(held: &MemoryUse) {
    let within = held.outbox_bytes <= 1 << 20
        && held.events <= 256
        && held.early_datagrams <= usize::from(MEMBERS) * LOG_SLOTS
        && held.assembly_bytes <= usize::from(MEMBERS) * 4000
        && held.clients <= 1024
        && held.client_bytes <= 16 * 4000
        && held.client_watermarks <= 2 * 32_768;
    assert!(within, "{held:?}");
}

/// A client among strangers.
pub fn client(data: &[u8]) {
    let mut script = Script { rest: data, fingerprint: 0 };
    let mut client = Client::new(Instant(0), GROUP, ClientId(1), address(999), MTU_BYTES);
    let (mut now, mut published) = (Instant(0), 0);
    for _ in 0..OPERATIONS_MAX {
        if script.rest.is_empty() {
            break;
        }
        match script.byte() % 4 {
            0 => {
                let datagram = script.datagram();
                client.on_datagram(now, &datagram, script.byte() & 1 == 0);
            }
            1 if client.has_room() => {
                assert_eq!(client.publish(TopicId(1), &script.bytes()).0, published, "sequences have no holes");
                published += 1;
            }
            2 => now = now + u64::from(script.byte()) * 1_000_000,
            _ => {
                let (room, mut sent) = (u64::from(script.byte()), 0);
                client.transmit(now, |_, bytes, _| {
                    assert!(Datagram::parse(bytes, GROUP).is_ok(), "what it sends can be read");
                    sent += 1;
                    usize::from(sent <= room)
                });
            }
        }
        while client.poll_event().is_some() {}
    }
}
