use bourdon_sim::*;
fn main() {
    let args: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let (seed, n) = (args.first().copied().unwrap_or(0), args.get(1).copied().unwrap_or(200));
    let mode = match std::env::args().last().as_deref() {
        Some("safety") => Mode::Safety,
        Some("liveness") => Mode::Liveness,
        _ => Mode::Both,
    };
    let options = Options { mode, threads: 2, mutate: None };
    let t = std::time::Instant::now();
    let report = run(seed..seed + n, options, &|_| {});
    eprintln!(
        "{:?} seeds {} steps {} delivered {} {:?} digest {:x}",
        t.elapsed(),
        report.seeds,
        report.steps,
        report.delivered,
        report.faults,
        report.digest
    );
    for f in report.failures.iter().take(40) {
        println!("{} {} {}", f.seed, f.invariant, f.detail);
    }
    println!("{} failures", report.failures.len());
    if n == 1 {
        println!("{:#?}", Plan::draw(seed));
    }
    if std::env::args().any(|a| a == "mutants") {
        let r = check_mutants(seed..seed + n, options, &bourdon_protocol::Mutant::ALL, &|_| {});
        println!("{:?} caught {:?} missed {:?} flagged {:?}", t.elapsed(), r.caught, r.missed, r.flagged);
        let mut seen = std::collections::BTreeMap::new();
        for f in &r.failures {
            *seen.entry((f.replay.split("--mutate ").last().unwrap().to_string(), f.invariant.clone())).or_insert(0) +=
                1;
        }
        println!("{seen:#?}");
    }
}
