//! The rules, checked against the tree as it is. Each failure lists the places and states what to do.

use bourdon_tidy::{Tree, api, circles, layers, pages, purity, safety, shape, words};

fn hold(violations: &[String], advice: &str) {
    assert!(violations.is_empty(), "\n\n  {}\n\n{advice}\n", violations.join("\n  "));
}

#[test]
fn crates_know_only_what_their_room_allows() {
    hold(
        &layers::forbidden(&layers::edges(&Tree::read())),
        "Move the code to the room that may know both, or hand in what is needed. If the architecture itself changes, \
         change MAY_KNOW in tools/tidy/src/layers.rs together with docs/architecture.md.",
    );
}

#[test]
fn every_crate_has_a_line_on_the_architecture_page() {
    hold(&layers::rooms_without_a_line(&Tree::read()), "Add the room, what it is and what it may know.");
}

#[test]
fn no_circle_of_files() {
    hold(
        &circles::circles(&Tree::read()),
        "Move what both need into a file below both, or hand it in as a value: then each can be read without the \
             other.",
    );
}

#[test]
fn the_planes_know_nothing_of_each_other() {
    hold(
        &circles::across_planes(&Tree::read()),
        "Move the value that both planes exchange to the bottom (docs/architecture.md), or join them in process.rs.",
    );
}

#[test]
fn the_text_names_its_actors() {
    hold(
        &words::refused(&Tree::read()),
        "Name the process (member, observer, sequencer, the application) and use the field's verb (send, deliver, \
             report).",
    );
}

#[test]
fn crates_are_named_only_where_they_may_be() {
    hold(
        &layers::named_out_of_place(&Tree::read()),
        "In the engine be generic over `Port`, or go through `AnyPort` in engine/node/src/transport.rs; in the lab the \
         members alone run the engine.",
    );
}

#[test]
fn protocols_and_simulator_touch_nothing_but_what_they_are_given() {
    hold(
        &purity::reaching_out(&Tree::read()),
        "Take time, bytes and seeds as arguments (see the step contract in engine/protocol/src/lib.rs).",
    );
}

#[test]
fn pure_crates_declare_it_to_the_compiler() {
    hold(&purity::unsaid(&Tree::read()), "Put the attribute back at the top of the crate.");
}

#[test]
fn raw_atomics_stay_in_the_rings() {
    hold(&safety::atomics(&Tree::read()), "Use what engine/ring offers, or build it there, where loom sees it.");
}

#[test]
fn unsafe_code_stays_in_its_rooms() {
    hold(&safety::unsafe_code(&Tree::read()), "Find the safe way, or move it into the crate that is made for it.");
}

#[test]
fn unsafe_code_is_proved_where_it_stands() {
    hold(&safety::unproved(&Tree::read()), "Write `// SAFETY:` and why it is sound, right above.");
}

#[test]
fn every_source_states_what_it_is_for() {
    hold(&shape::without_header(&Tree::read()), "Begin with the problem in plain words, then its solution.");
}

#[test]
fn sources_are_short() {
    hold(&shape::too_long(&Tree::read()), "Find the two things it holds and give each a file.");
}

#[test]
fn lines_are_short() {
    hold(&shape::long_lines(&Tree::read()), "Break the line; a comment is wrapped by hand.");
}

#[test]
fn functions_are_short() {
    hold(&shape::long_functions(&Tree::read()), "Give a part of it a name.");
}

#[test]
fn invariants_are_code() {
    hold(
        &shape::too_few_asserts(&Tree::read()),
        "Assert what the header or the field's comment states: debug_assert! for each datagram or message, else \
         assert!, never on a received byte.",
    );
}

#[test]
fn every_crate_has_the_same_lints() {
    hold(&shape::without_lints(&Tree::read()), "Write [lints] workspace = true, or repeat them with the difference.");
}

#[test]
fn every_test_is_in_a_program() {
    hold(&shape::forgotten_tests(&Tree::read()), "Name it in tests/all.rs beside it.");
}

#[test]
fn every_protocol_has_its_page() {
    hold(
        &pages::protocols(&Tree::read()),
        "Write the page: problem, rule, frames, invariants, bounds, tests that hold it, source. A file that is no \
         protocol goes into NO_PROTOCOL in tools/tidy/src/pages.rs.",
    );
}

#[test]
fn every_frame_stands_on_the_page_of_formats() {
    hold(&pages::wire(&Tree::read()), "Add its row and its layout, and think about the version number.");
}

#[test]
fn what_holds_a_rule_is_there() {
    hold(&pages::held_by(&Tree::read()), "Name the test, plan or bug as it is called now, or write it.");
}

#[test]
fn every_page_is_listed() {
    hold(&pages::unlisted(&Tree::read()), "Add a link, under what the page is for.");
}

#[test]
fn links_lead_somewhere() {
    hold(&pages::links(&Tree::read()), "Write the page, or mend the link.");
}

#[test]
fn no_text_names_a_machine_or_leaves_a_note() {
    hold(&pages::unwanted(&Tree::read()), "Use a path from the top of the repository; do it now, or file an issue.");
}

#[test]
fn people_and_the_gate_run_the_same_tests() {
    hold(&pages::test_command(&Tree::read()), "Make README.md and .ci/run say the same command on a line of its own.");
}

#[test]
fn the_public_api_is_described() {
    let found = api::documentation(&Tree::read());
    println!("with an example: {} names, {} verbs", found.names, found.verbs);
    hold(&found.bare, "Describe it: units, default, what it is for.");
    hold(&found.without_errors, "Add a section `# Errors`: when it fails, and what to do.");
}

#[test]
fn the_public_api_is_as_listed() {
    let tree = Tree::read();
    let (listing, counts) = api::listing(&tree);
    println!("{counts}");
    let path = tree.root.join(api::LISTING);
    if std::env::var_os("BOURDON_RENEW_API").is_some() {
        return std::fs::write(path, listing).expect("the listing can be written");
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    let (now, before): (Vec<_>, Vec<_>) = (listing.lines().collect(), kept.lines().collect());
    let only = |sign, these: &[&str], others: &[&str]| -> Vec<String> {
        these.iter().filter(|line| !others.contains(line)).map(|line| format!("{sign} {line}")).collect()
    };
    let mut changes = [only('-', &before, &now), only('+', &now, &before)].concat();
    if changes.is_empty() && listing != kept {
        changes.push(format!("the order of lines in {}", api::LISTING));
    }
    hold(
        &changes,
        "If this is meant, renew the listing: BOURDON_RENEW_API=1 cargo test -p bourdon-tidy public_api. Describe what \
             users notice in CHANGELOG.md.",
    );
}
