//! The order book example, small: five processes, one killed and back, then all killed and back, all books equal.

use std::path::PathBuf;
use std::process::Command;

/// The example as cargo has built it beside this test, or builds it now: cargo builds no examples for a single test.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("a test is a file");
    let path =
        test.parent().and_then(|deps| deps.parent()).expect("in a folder of a folder").join("examples/order_book");
    if !path.exists() {
        let arguments = ["build", "--offline", "-q", "-p", "bourdon", "--example", "order_book"];
        let built = Command::new(env!("CARGO")).args(arguments).status().expect("cargo runs");
        assert!(built.success(), "the example can be built");
    }
    path
}

#[test]
fn all_books_are_equal_though_a_member_was_killed_and_then_all() {
    let done = Command::new(example()).args(["--events", "4000"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
    let books = text.lines().filter_map(|line| Some(line.split_once("best offer: ")?.1)).collect::<Vec<_>>();
    assert_eq!(books.len(), 5, "{text}");
    assert!(
        books.iter().all(|book| *book == books[0]) && text.contains("is back") && text.contains("all were killed"),
        "{text}"
    );
    let none = Command::new(example()).arg("no-such-file.dbn").output().expect("it runs");
    assert_eq!(none.status.code(), Some(1));
}
