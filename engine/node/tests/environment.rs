//! A node and its host's limits: cores, directories, stale files, forbidden system calls, sockets in the way.
#![allow(unsafe_code)] // installs a seccomp filter

use crate::common::{self, TOPIC, World, cell, next_event, poll_until, read, start, until};
use bourdon::counters;
use bourdon::counters::Directory;
use bourdon::error::PortError;
use bourdon::settings::IdleStrategy;
use bourdon::{Closed, Error, Event, InlineNode, Node};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;

fn refusal(settings: &bourdon::Settings) -> Error {
    Node::open(settings).map(drop).expect_err("it must not start")
}

#[test]
fn a_core_that_is_not_there_stops_the_start() {
    let world = World::new(1);
    let mut settings = world.member(0);
    settings.threads.core = Some(4711);
    assert!(refusal(&settings).to_string().contains("threads.core is 4711"));
    settings.threads.core = core_affinity::get_core_ids().and_then(|cores| Some(cores.first()?.id));
    Node::open(&settings).expect("a core that is there is taken");
}

#[test]
fn agents_are_pinned_as_the_topology_decides_and_idle_as_the_host_affords() {
    let world = World::new(1);
    let mut settings = world.member(0);
    (settings.threads.pin, settings.threads.idle) = (true, IdleStrategy::Auto);
    let node = Node::open(&settings).expect("every host has a place for one agent");
    let cores = core_affinity::get_core_ids().map_or(0, |cores| cores.len());
    let status = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
    let tasks = std::fs::read_dir("/proc/self/task").expect("it is there").filter_map(Result::ok);
    let allowed = |text: String| {
        let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let line = list.map(|list| list.trim().to_owned());
        text.contains("bourdon-data").then_some(line).flatten()
    };
    let lists: Vec<_> = tasks.map(status).filter_map(allowed).collect();
    // Nodes of other tests run beside it, unpinned.
    assert!(cores == 1 || lists.iter().any(|list| list.parse::<usize>().is_ok()), "{lists:?}");
    let directory = Directory::open(Some(world.path())).expect("it is ours");
    let found = counters::list(&directory).expect("it can be read");
    assert!(matches!(&*found[0].description.idle, "spin" | "backoff" | "park"), "{}", found[0].description.idle);
    drop(node);
}

#[test]
fn files_come_and_go_with_their_node() {
    let world = World::new(1);
    let first = start(&world.member(0));
    // The same name, rank and process: still a file and a socket of its own.
    let mut settings = world.member(0);
    settings.group.address = common::fresh_address();
    let second = start(&settings);
    assert_ne!(first.0.info().counters_path, second.0.info().counters_path);
    assert_eq!(world.names().len(), 4);
    for path in [&first.0.info().counters_path, &first.0.info().socket_path] {
        let mode = std::fs::metadata(path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    drop((first, second));
    assert_eq!(world.names(), Vec::<String>::new());
}

#[test]
fn stale_files_go_and_damaged_ones_are_passed_over() {
    let world = World::new(1);
    let at = |name: &str| world.path().join(name);
    std::fs::write(at("test.member-0.1-0.counters"), b"left behind").expect("it can be written");
    std::fs::write(at("test.member-0.1-0.sock"), b"").expect("it can be written");
    std::fs::write(at("unrelated"), b"").expect("it can be written");
    symlink("/etc/passwd", at("link.counters")).expect("it can be made");
    // A process holds this file, but its contents make no sense.
    let held = std::fs::File::create(at("odd.counters")).expect("it can be made");
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).expect("it is ours");
    let node = start(&world.member(0));
    let mut names = world.names();
    names.retain(|name| !name.starts_with("test.member-0"));
    names.sort();
    assert_eq!(names, ["link.counters", "odd.counters", "unrelated"]);
    let directory = Directory::open(Some(world.path())).expect("it is ours");
    let found = counters::list(&directory).expect("it can be read");
    assert_eq!(found.len(), 1);
    let description = &found[0].description;
    assert_eq!((description.group.as_str(), description.role.as_str(), description.rank), ("test", "member", Some(0)));
    assert_eq!((description.io.as_str(), found[0].pid), (node.0.info().io.as_str(), std::process::id()));
    assert!(description.cells.iter().all(|(label, help)| !label.is_empty() && !help.is_empty()));
}

#[test]
fn the_events_of_a_node_report_a_birth_that_cannot_be_stored() {
    let world = World::new(2);
    let mut settings = world.member(0);
    let state = world.path().join("state");
    settings.process.state_directory = Some(state.clone());
    let first = start(&settings).0;
    let mut events = common::events(&first);
    std::fs::remove_dir_all(&state).expect("it is ours");
    let _second = start(&world.member(1));
    let mut event = None;
    until("the event", || {
        event = next_event(&mut events).filter(|event| matches!(event, Event::BirthNotStored(_)));
        event.is_some()
    });
    let text = event.map(|event| event.to_string()).unwrap_or_default();
    assert!(text.contains(state.to_str().expect("it is text")), "{text}");
}

#[test]
fn a_directory_that_others_could_write_is_refused() {
    let world = World::new(1);
    let mut settings = world.member(0);
    let open = world.path().join("open");
    std::fs::create_dir(&open).expect("it can be made");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).expect("it is ours");
    settings.threads.directory = Some(open.clone());
    assert!(refusal(&settings).to_string().contains("name another with threads.directory"));
    let link = world.path().join("link");
    symlink(&open, &link).expect("it can be made");
    settings.threads.directory = Some(link);
    assert!(matches!(refusal(&settings), Error::Directory(_)));
}

#[test]
fn an_inline_node_shares_its_counters_too() {
    let world = World::new(1);
    let settings = world.member(0);
    let mut node = InlineNode::join(&settings).expect("it joins");
    let path = node.share_counters(&settings).expect("the directory is ours");
    node.try_publish(&TOPIC, b"x").expect("a group of one is formed");
    let directory = Directory::open(Some(world.path())).expect("it is ours");
    assert!(path.starts_with(world.path()));
    poll_until(&mut node, "the counter to be copied", |_| {
        let found = counters::list(&directory).expect("it can be read");
        found[0].values().any(|value| value == ("delivered", 1))
    });
    drop(node);
    assert_eq!(world.names(), Vec::<String>::new());
}

fn ask(stream: &UnixStream, line: &[u8]) -> Value {
    let mut stream = stream;
    stream.write_all(line).expect("it is read");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).expect("it answers");
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

#[test]
fn the_admin_socket_answers_and_survives_what_comes() {
    let world = World::new(1);
    let (node, mut publication, mut subscription) = start(&world.member(0));
    let mut events = common::events(&node);
    let connect = || UnixStream::connect(&node.info().socket_path).expect("it listens");
    publication.try_publish(&TOPIC, b"x").expect("there is room");
    read(&mut subscription, 1);
    let stream = connect();
    until("the counter to be copied", || ask(&stream, b"{\"request\":\"stat\"}\n")["stat"]["delivered"] == 1);
    let view = ask(&stream, b"{\"request\":\"view\"}\n");
    assert_eq!((&view["view"]["epoch"], &view["view"]["members"][0]["heard"]), (&1.into(), &true.into()));
    assert!(ask(&stream, b"{\"request\":\"errors\"}\n")["errors"].is_array());
    assert!(ask(&stream, b"\xff\x00garbage\n")["error"].is_string());
    assert!(ask(&stream, b"{\"request\":\"stat\"}\n")["stat"].is_object(), "garbage ends no connection");
    // Two requests in one write, one request in two.
    let mut both = connect();
    both.write_all(b"{\"request\":\"view\"}\n{\"request\":\"st").expect("it is read");
    both.write_all(b"at\"}\n").expect("it is read");
    let mut lines = BufReader::new(&both).lines();
    assert!(lines.next().expect("a line").expect("readable").starts_with("{\"view\""));
    assert!(lines.next().expect("a line").expect("readable").starts_with("{\"stat\""));
    // A line without end is cut off with a reason.
    let mut endless = connect();
    let _ = endless.write_all(&[b'x'; 1 << 16]);
    let mut answer = Vec::new();
    let _ = endless.read_to_end(&mut answer); // may end in a reset, since not all was read
    // More connections than there is room for, silent connections, closed ones, and a client that sends a request and
    // never reads.
    let idle: Vec<_> = (0..40).map(|_| connect()).collect();
    drop(idle);
    let mut deaf = connect();
    deaf.set_nonblocking(true).expect("it can be set");
    for _ in 0..100_000 {
        if deaf.write(b"{\"request\":\"stat\"}\n").is_err() {
            break;
        }
    }
    assert!(ask(&stream, b"{\"request\":\"view\"}\n")["view"].is_object(), "the others are served");
    publication.try_publish(&TOPIC, b"y").expect("the data path lives");
    read(&mut subscription, 1);
    assert_eq!(ask(&stream, b"{\"request\":\"stop\"}\n")["stopping"], true);
    until("it to stop", || !node.is_running());
    assert!(matches!(next_event(&mut events), Some(bourdon::Event::View { .. })));
    assert_eq!(events.try_next().map(|_| ()), Err(Closed::Ended));
    drop(node);
    assert_eq!(world.names(), Vec::<String>::new());
}

#[test]
fn strange_datagrams_are_counted_and_harmless() {
    let world = World::new(2);
    let (node, mut publication, mut subscription) = start(&world.member(0));
    let (_other, _, mut others) = start(&world.member(1));
    publication.publish(&TOPIC, b"before", common::PATIENCE).expect("the group forms");
    read(&mut subscription, 1);
    read(&mut others, 1);
    // A real datagram to damage: what the group itself sends.
    let spy = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    spy.set_reuse_address(true).expect("allowed");
    spy.bind(&world.address.into()).expect("shared with the group");
    let std::net::IpAddr::V4(group) = world.address.ip() else { panic!("an IPv4 group") };
    spy.join_multicast_v4(&group, &std::net::Ipv4Addr::LOCALHOST).expect("lo takes multicast");
    let spy = UdpSocket::from(spy);
    let mut bytes = [0; 2048];
    let length = spy.recv(&mut bytes).expect("members beat");
    let genuine = &bytes[..length];
    let sender = UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let sender = Socket::from(sender);
    sender.set_multicast_if_v4(&std::net::Ipv4Addr::LOCALHOST).expect("lo takes multicast");
    let sender = UdpSocket::from(sender);
    let changed = |at: usize, by: u8| {
        let mut bytes = genuine.to_vec();
        bytes[at] ^= by;
        bytes
    };
    let (damaged, version, truncated) = (changed(length - 1, 1), changed(2, 0x40), genuine[..length - 5].to_vec());
    for datagram in [b"not ours".to_vec(), Vec::new(), damaged, version, truncated] {
        sender.send_to(&datagram, world.address).expect("lo takes it");
    }
    for (label, least) in [("discarded_foreign", 1), ("discarded_damaged", 2), ("discarded_version", 1)] {
        until(label, || cell(&world, &node, label) >= least);
    }
    publication.try_publish(&TOPIC, b"after").expect("there is room");
    assert_eq!(read(&mut subscription, 1)[0].3, b"after");
    assert_eq!(read(&mut others, 1)[0].3, b"after");
}

#[test]
fn what_is_in_the_way_is_named() {
    let world = World::new(1);
    let mut settings = world.member(0);
    settings.network.interface = "no-such-if".to_owned();
    assert!(refusal(&settings).to_string().contains("no-such-if"));
    settings.network.interface = "lo".to_owned();
    settings.group.address = SocketAddr::from(([10, 0, 0, 1], 7000));
    assert!(matches!(refusal(&settings), Error::Port(PortError::NotMulticast(_))));
    settings.group.address = world.address;
    let _unsharing = UdpSocket::bind(world.address).expect("no process uses it");
    let refused = refusal(&settings);
    assert!(matches!(refused, Error::Port(PortError::AddressInUse { .. })), "{refused}");
    settings.group.address = common::fresh_address();
    settings.network.receive_buffer_bytes = 4096;
    let text = refusal(&settings).to_string();
    assert!(text.contains("network.receive_buffer_bytes is 4096, too small"), "{text}");
    assert_eq!(world.names(), Vec::<String>::new());
}

#[test]
fn a_second_process_of_one_rank_is_reported() {
    let world = World::new(2);
    let (first, ..) = start(&world.member(0));
    let mut first_events = common::events(&first);
    let (_other, ..) = start(&world.member(1));
    until("a first incarnation to be known", || cell(&world, &first, "is_formed") == 1);
    let second = Node::open(&world.member(0)).expect("it opens");
    let mut second_events = common::events(&second);
    second.join().expect("it joins");
    let (mut claimed, mut conflict) = (false, false);
    until("both processes to report it", || {
        while let Some(event) = next_event(&mut first_events) {
            claimed |= matches!(event, Event::RankClaimed(_));
        }
        while let Some(event) = next_event(&mut second_events) {
            conflict |= matches!(event, Event::IdentityConflict { .. });
        }
        claimed && conflict
    });
}

/// Makes a system call fail on this thread and those it starts, as containers do.
fn forbid(system_call: libc::c_long) -> std::io::Result<()> {
    let statement = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, system_call as u32, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: takes numbers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel copies the program, whose pointer and length are those of `filter`, alive through the call.
    if unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

#[test]
fn without_io_uring_it_falls_back_and_reports_it() {
    for system_call in [libc::SYS_io_uring_setup, libc::SYS_io_uring_register, libc::SYS_io_uring_enter] {
        let case = std::thread::spawn(move || falls_back_without(system_call));
        case.join().expect("the case passes");
    }
}

fn falls_back_without(system_call: libc::c_long) {
    if let Err(error) = forbid(system_call) {
        return crate::skipped::report(format_args!("no seccomp filter can be installed here: {error}"));
    }
    let world = World::new(1);
    let (node, mut publication, mut subscription) = start(&world.member(0));
    let fallback = node.info().fallback.as_deref().expect("it reports the fallback");
    assert!(fallback.contains("io_uring") && fallback.contains("portable"), "{fallback}");
    assert_eq!(node.info().io, "epoll");
    publication.try_publish(&TOPIC, b"all the same").expect("there is room");
    assert_eq!(read(&mut subscription, 1)[0].3, b"all the same");
    drop(node);
    let mut settings = world.member(0);
    settings.network.transport = bourdon::settings::Transport::Tcp;
    settings.network.peers = vec![SocketAddr::from(([127, 0, 0, 1], world.address.port()))];
    let node = InlineNode::join(&settings).expect("it starts");
    assert!(node.fallback().is_some_and(|why| why.contains("io_uring") && why.contains("epoll")));
    assert_eq!(node.io(), "epoll");
}
