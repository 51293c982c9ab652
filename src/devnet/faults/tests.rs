//! The list of faults is one list.

use clap::Subcommand as _;

use super::*;

#[test]
fn a_fault_is_typed_listed_and_sent_under_one_name() {
    let command = Fault::augment_subcommands(clap::Command::new("fault"));
    let typed: Vec<_> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    assert!(typed.len() >= 20, "{typed:?}");
    let fault = Fault::LiesReady { provider: "provider1".into() };
    assert!(typed.iter().any(|name| name == fault.name()));
    assert!(serde_json::to_string(&fault).unwrap().contains("\"lies-ready\""));
    for switch in [
        ProviderFault::NoBids,
        ProviderFault::NeverDeploys,
        ProviderFault::LiesReady,
        ProviderFault::LiesGone,
        ProviderFault::OtherManifest,
        ProviderFault::KeepsRunning,
        ProviderFault::OffersLess,
        ProviderFault::Price(1),
        ProviderFault::Reclaimable(Duration::ZERO),
        ProviderFault::GatewayStatus(500),
        ProviderFault::GatewaySilent,
    ] {
        assert!(typed.iter().any(|name| name == switch.name()), "{switch:?}");
    }
}

#[test]
fn times_are_written_as_everywhere() {
    assert_eq!("500ms".parse(), Ok(Time(Duration::from_millis(500))));
    assert_eq!("6s".parse(), Ok(Time(Duration::from_secs(6))));
    assert_eq!("1h".parse(), Ok(Time(Duration::from_hours(1))));
    for bad in ["", "6", "s", "0s", "-1s", "6 s", "6d", "99999999999999999999h"] {
        assert!(bad.parse::<Time>().is_err(), "{bad}");
    }
}
