//! `providers`: whom the operator met on the market, and what it lived through with them.

use std::io::Write;

use super::error::CliError;
use super::output::Structured;
use super::show::columns;
use crate::api::providers::ProviderReport;
use crate::api_client::Client;

/// Flags of `providers`.
#[derive(Debug, clap::Args)]
pub struct ShowProviders {
    /// How it is written; a table when absent.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<Structured>,
}

pub(super) async fn providers(
    client: &Client,
    args: ShowProviders,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let list = client.providers().await?;
    let text = match args.output {
        Some(output) => output.render(&list),
        None if list.items.is_empty() => {
            "no providers met yet; they are remembered with the first order of a cluster\n"
                .to_owned()
        }
        None => table(&list.items),
    };
    Ok(out.write_all(text.as_bytes())?)
}

fn table(providers: &[ProviderReport]) -> String {
    let header = [
        "PROVIDER",
        "HOST",
        "NODES",
        "BIDS",
        "WON",
        "STARTED",
        "FAILED",
        "INCIDENTS",
        "TROUBLE",
        "PRICE/MONTH",
        "PATH",
        "SEEN",
    ];
    let rows = providers.iter().map(|p| {
        vec![
            p.provider.clone(),
            p.host.clone().unwrap_or_default(),
            p.nodes.join(","),
            p.bids.to_string(),
            p.won.to_string(),
            p.started.to_string(),
            p.failed_starts.to_string(),
            p.incidents.to_string(),
            if p.avoided { format!("{} (avoided)", p.trouble) } else { p.trouble.clone() },
            p.last_price.clone().unwrap_or_default(),
            p.path.clone().unwrap_or_default(),
            p.seen.clone(),
        ]
    });
    columns(&header, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_one_line() {
        let met = ProviderReport {
            provider: "akash1p".into(),
            nodes: vec!["cache-0-aaaa".into(), "other-1-bbbb".into()],
            bids: 7,
            won: 2,
            trouble: "2.7".into(),
            avoided: true,
            last_price: Some("2.5act".into()),
            seen: "2026-11-25T22:41:11Z".into(),
            ..ProviderReport::default()
        };
        let text = table(&[met]);
        let line = text.lines().nth(1).expect("a line");
        let cells: Vec<_> = line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
        assert_eq!(
            cells,
            [
                "akash1p",
                "-",
                "cache-0-aaaa,other-1-bbbb",
                "7",
                "2",
                "0",
                "0",
                "0",
                "2.7 (avoided)",
                "2.5act",
                "-",
                "2026-11-25T22:41:11Z"
            ]
        );
    }
}
