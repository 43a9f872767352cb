fn main(){
 use stateright::*;
 let a: Vec<u64> = std::env::args().skip(1).map(|x|x.parse().unwrap()).collect();
 let g = bourdon_model::group::Group{members:a[0] as u8,ballots:a[1] as u8,crashes:a[2] as u8,datagrams:a[3] as u8,changes:a[4] as u8,suspects:a[5]!=0,..bourdon_model::group::Group::small()};
 let t=std::time::Instant::now();
 if a[6]==0 {
 let c=g.clone().checker().timeout(std::time::Duration::from_secs(120)).spawn_bfs().join();
 println!("{} {} depth {} in {:?}",c.state_count(),c.unique_state_count(),c.max_depth(),t.elapsed());
 for (n,p) in c.discoveries(){ println!("{n}: {} {:?}",p.clone().into_actions().len(), p.into_actions()); }
 } else {
 let r=bourdon_model::reach::reach(&g, std::time::Duration::from_secs(120));
 println!("{r:?} {:?}",t.elapsed());
 }
}
