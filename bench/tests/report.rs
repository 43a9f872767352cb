//! `bourdon-bench report`: a page from a measurement's own output, and a clear error from anything else.

use crate::bench;

#[test]
fn a_measurement_becomes_a_page() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = |name: &str| folder.path().join(name).to_str().expect("the path is text").to_owned();
    let (measured, page) = (path("latency.json"), path("page.html"));
    let own = path("own.html");
    let output = bench(&["latency", "--rounds", "1", "--count", "200", "--idle", "yield", "--json", "--html", &own]);
    std::fs::write(&measured, &output.stdout).expect("it can be written");
    assert!(std::fs::read_to_string(&own).is_ok_and(|html| html.contains("<polyline")), "--html writes the same plots");
    let output = bench(&["report", &measured, "--html", &page]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let html = std::fs::read_to_string(&page).expect("the page was written");
    for part in ["latency.json", "raw-spin", "rtt p50 over raw", "<polyline", "percentile", "µs", "kernel"] {
        assert!(html.contains(part), "{part} is missing");
    }
    assert!(html.len() < 1_000_000 && !html.contains("http"), "one file, without other hosts");
}

#[test]
fn issue_a_page_overwrote_its_measurement() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = |name: &str| folder.path().join(name).to_str().expect("the path is text").to_owned();
    let text = "{\"rows\": [{\"what\": \"load\"}]}";
    std::fs::write(path("x.json"), text).expect("it can be written");
    std::os::unix::fs::symlink(path("x.json"), path("link.html")).expect("a link can be made");
    for page in ["x.json", "./x.json", "link.html"] {
        let output = bench(&["report", &path("x.json"), "--html", &path(page)]);
        assert_eq!(output.status.code(), Some(2), "{page}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("another name"), "{page}");
        assert_eq!(std::fs::read_to_string(path("x.json")).expect("it is there"), text);
    }
}

#[test]
fn what_is_no_measurement_is_refused() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = |name: &str| folder.path().join(name).to_str().expect("the path is text").to_owned();
    std::fs::write(path("table.txt"), "what system count\n").expect("it can be written");
    std::fs::write(path("empty.json"), "{\"rows\": []}").expect("it can be written");
    for (name, why) in [("missing.json", "can't read"), ("table.txt", "no JSON"), ("empty.json", "no rows")] {
        let output = bench(&["report", &path(name), "--html", &path("page.html")]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(talk.contains(why) && talk.contains(name), "{talk}");
    }
    assert!(!folder.path().join("page.html").exists());
}
