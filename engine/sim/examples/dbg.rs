use bourdon_sim::{Family, Options, play};
fn main() {
    for seed in std::env::args().skip(1) {
        let seed: u64 = seed.parse().unwrap();
        let plan = Family::BlackHole.draw(seed);
        eprintln!("seed {seed}: members {} seq {} {:?} {:?} events {:?}", plan.members, plan.sequencer, plan.order, plan.reliability, plan.events.iter().map(|e| (e.at_ns/1000000, e.process, e.other>>16, e.other & 0xffff)).collect::<Vec<_>>());
        eprintln!("=> {:?}", play(&plan, seed, Options::default()).violation);
    }
}
