//! `spend`: the operator's books as a table, as CSV or as JSON.

use std::fmt::Write as _;
use std::io::Write;

use clap::ValueEnum;

use super::error::CliError;
use super::{cluster_name, show};
use crate::api::spend::{Amounts, Month, SpendReport, SpendRow};
use crate::api_client::Client;
use crate::model::money::Uact;

/// How the books are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people: amounts in act and akt.
    #[default]
    Table,
    /// One line for each node and provider: amounts in uact and uakt.
    Csv,
    /// All of it: amounts in uact and uakt.
    Json,
}

/// Flags of `spend`.
#[derive(Debug, clap::Args)]
pub struct Spend {
    /// One cluster, gone or not; all when absent.
    #[arg(value_parser = cluster_name)]
    pub name: Option<String>,
    /// A month in UTC, such as 2026-11; all time when absent.
    #[arg(long, value_name = "MONTH")]
    pub month: Option<Month>,
    /// How it is written.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Output,
}

pub(super) async fn run(
    client: &Client,
    args: Spend,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let report = client.spend(args.name.as_deref(), args.month).await?;
    let text = match args.output {
        Output::Table => table(&report),
        Output::Csv => csv(&report),
        Output::Json => {
            serde_json::to_string_pretty(&report).map(|text| text + "\n").unwrap_or_default()
        }
    };
    Ok(out.write_all(text.as_bytes())?)
}

const COLUMNS: [&str; 10] = [
    "CLUSTER",
    "UID",
    "NODE",
    "PROVIDER",
    "DEPOSITED",
    "PAID",
    "REFUNDED",
    "IN-ESCROW",
    "DEBT",
    "FEES",
];

/// For people.
#[must_use]
pub fn table(report: &SpendReport) -> String {
    if report.rows.is_empty() {
        return "nothing was spent\n".to_owned();
    }
    let line = |names: [String; 4], amounts: Amounts, estimated: bool| {
        let act = |uact: u64| if uact == 0 { String::new() } else { Uact(uact).to_string() };
        let about = if estimated { "~" } else { "" };
        let mut line = names.to_vec();
        line.extend([
            act(amounts.deposited_uact),
            format!("{about}{}", act(amounts.paid_uact)),
            act(amounts.refunded_uact),
            act(amounts.in_escrow_uact),
            act(amounts.debt_uact),
            akt(amounts.fees_uakt),
        ]);
        line
    };
    let short = |uid: &str| uid.chars().take(8).collect::<String>();
    let row = |row: &SpendRow| {
        let names = [row.cluster.clone(), short(&row.uid), row.node.clone(), row.provider.clone()];
        line(names, row.amounts, row.estimated)
    };
    let estimated = |cluster: &str, uid: &str| {
        report.rows.iter().any(|row| row.cluster == cluster && row.uid == uid && row.estimated)
    };
    let mut lines: Vec<_> = report.rows.iter().map(row).collect();
    for of in &report.clusters {
        let names = [of.cluster.clone(), short(&of.uid), "all nodes".to_owned(), String::new()];
        lines.push(line(names, of.amounts, estimated(&of.cluster, &of.uid)));
    }
    if report.clusters.len() > 1 {
        let names = ["all clusters".to_owned(), String::new(), String::new(), String::new()];
        lines.push(line(names, report.total, report.rows.iter().any(|row| row.estimated)));
    }
    let mut text = show::columns(&COLUMNS, lines.into_iter());
    if report.rows.iter().any(|row| row.estimated) {
        let until = report.as_of.as_deref().unwrap_or("the last reading");
        let _ = writeln!(
            text,
            "~ reckoned by the price of the lease: the chain settles later, and knows no months; as of {until}"
        );
    }
    if report.rows.iter().any(|row| row.amounts.debt_uact > 0) {
        text.push_str(
            "DEBT is what a lease went on for after its escrow was empty; nobody has to pay it\n",
        );
    }
    for of in report.payers.iter().filter(|of| of.payer != crate::model::books::Payer::Own) {
        let _ = writeln!(
            text,
            "money of {} accounts: {} deposited, {} refunded, {} fees",
            of.payer,
            Uact(of.deposited_uact),
            Uact(of.refunded_uact),
            if of.fees_uakt == 0 { "no".to_owned() } else { akt(of.fees_uakt) },
        );
    }
    text
}

/// A millionth is a millionth, of whatever coin.
fn akt(uakt: u64) -> String {
    if uakt == 0 { String::new() } else { Uact(uakt).to_string().replace("act", "akt") }
}

/// For spreadsheets: only rows, so that every sum is theirs.
#[must_use]
pub fn csv(report: &SpendReport) -> String {
    let mut text = "cluster,uid,node,dseq,provider,deposited_uact,paid_uact,refunded_uact,in_escrow_uact,debt_uact,fees_uakt,estimated\n".to_owned();
    for row in &report.rows {
        let Amounts {
            deposited_uact,
            paid_uact,
            refunded_uact,
            in_escrow_uact,
            debt_uact,
            fees_uakt,
        } = row.amounts;
        let names = [&row.cluster, &row.uid, &row.node].map(|name| field(name)).join(",");
        let _ = writeln!(
            text,
            "{names},{},{},{deposited_uact},{paid_uact},{refunded_uact},{in_escrow_uact},{debt_uact},{fees_uakt},{}",
            row.dseq,
            field(&row.provider),
            row.estimated
        );
    }
    text
}

fn field(text: &str) -> String {
    let text = show::clean(text);
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests;
