//! Files of costs, from raw bytes. What is read is written the same again and tells a time of any network, by each way of running that it
//! has, or says why not.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use penjing::{
    costs::Costs,
    zoo::{Network, random_weights},
};

fuzz_target!(|bytes: &[u8]| {
    let Ok(costs) = Costs::parse(bytes) else { return };
    assert_eq!(Costs::parse(&costs.to_bytes()).as_ref(), Ok(&costs));
    let graph = Network::named("resnet8").and_then(|network| network.graph(32, 2)).expect("it is in the zoo");
    let weights = random_weights(&graph, 0);
    for way in &costs.ways {
        let costs = costs.clone().run_by(Some(&way.isa), Some(way.threads)).expect("the file has it");
        assert!(costs.predict(&graph, &weights).map_or(true, |time| time >= 0.0));
    }
    if let Ok(time) = costs.predict(&graph, &weights) {
        assert!(time >= 0.0, "{time}");
    }
});
