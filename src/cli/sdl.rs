//! `akash-redis sdl`: what one node of a manifest looks like on the market, without touching
//! anything.

use clap::{Args, ValueEnum};

use super::error::CliError;
use super::manifests;
use crate::api::types::{RedisCluster, Spec};
use crate::model::identity::NODE_VARIABLE;
use crate::model::ids::{IncarnationName, InstallationId};
use crate::model::money::{PricePerBlock, Uact};
use crate::sdl;

/// Shown in place of an image; nothing can be pulled from there.
const PLACEHOLDER_IMAGE: &str = "registry.example/akash-redis/node@sha256:0000000000000000000000000000000000000000000000000000000000000000";
/// Stands for the node's own identity, which only the operator can make.
const PLACEHOLDER_IDENTITY: &str = "<filled in by the operator>";
/// Stands for the installation's id and for the random end of an incarnation's name.
const PLACEHOLDER_INSTALLATION: &str = "xxxxxx";
const PLACEHOLDER_SUFFIX: &str = "xxxx";
/// Time between blocks that a month's price is converted with here, milliseconds; the operator
/// measures it.
const USUAL_BLOCK_MS: u64 = 6029;
/// Price of one node shown when the manifest names none and the operator's own budget would decide.
const SHOWN_PRICE: Uact = Uact(4_000_000);

/// Renders one node of a manifest for the Akash market.
///
/// The hash on the chain differs from the one shown here: each node's manifest carries an identity
/// that the operator makes for it alone, in the variable `AKASH_REDIS_NODE`.
#[derive(Debug, Args)]
pub struct SdlArgs {
    /// File with the manifest of one cluster; `-` is standard input.
    #[arg(short, long = "filename", value_name = "FILE")]
    pub file: String,
    /// The node, by number, from 0.
    #[arg(long, default_value_t = 0)]
    pub node: u32,
    /// What to print: the SDL, the manifest as it is hashed, or its hash.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Output::Sdl)]
    pub output: Output,
    /// Image of the node, by digest.
    #[arg(long, default_value = PLACEHOLDER_IMAGE)]
    pub image: String,
}

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// SDL as the Akash tools read it.
    Sdl,
    /// Canonical manifest, the text that is hashed.
    Manifest,
    /// SHA-256 of the canonical manifest, hex.
    Hash,
}

/// Why nothing could be rendered.
#[derive(Debug, thiserror::Error)]
pub enum SdlError {
    /// The file cannot be read, or the manifest is wrong.
    #[error(transparent)]
    Manifest(Box<CliError>),
    /// One cluster can be shown at a time.
    #[error(
        "the manifest holds {0} clusters and one can be shown at a time; put it into a file of its own"
    )]
    Several(usize),
    /// There is no such node.
    #[error(
        "there is no node {node}: the cluster has {nodes}, counted from 0; give another --node"
    )]
    Node {
        /// Asked for.
        node: u32,
        /// Nodes of the cluster.
        nodes: u32,
    },
}

/// What `akash-redis sdl` prints. Behind the manifest there is no line end: what comes out is what
/// is hashed.
pub fn run(args: &SdlArgs) -> Result<String, SdlError> {
    let found = manifests::check(std::slice::from_ref(&args.file));
    let mut clusters = found.map_err(|error| SdlError::Manifest(Box::new(error)))?;
    match (clusters.pop(), clusters.len()) {
        (Some(cluster), 0) => render(&cluster, args),
        (_, others) => Err(SdlError::Several(others + 1)),
    }
}

fn render(cluster: &RedisCluster, args: &SdlArgs) -> Result<String, SdlError> {
    let spec = &cluster.spec;
    if args.node >= spec.nodes {
        return Err(SdlError::Node { node: args.node, nodes: spec.nodes });
    }
    let incarnation = IncarnationName::new(&cluster.metadata.name, args.node, PLACEHOLDER_SUFFIX);
    let group = incarnation.group_name(&InstallationId(PLACEHOLDER_INSTALLATION.to_owned()));
    let env = [(NODE_VARIABLE.to_owned(), PLACEHOLDER_IDENTITY.to_owned())];
    Ok(match args.output {
        Output::Sdl => {
            let (price, source) = price(spec);
            let body = sdl::text(
                spec,
                &group,
                PricePerBlock::from_month(price, USUAL_BLOCK_MS),
                &args.image,
                &env,
            );
            let name = &cluster.metadata.name;
            format!(
                "# Node {} of {name}. The operator fills in {NODE_VARIABLE} and the x of the group's name.\n# Price: {source}.\n{body}",
                args.node
            )
        }
        Output::Manifest => sdl::manifest(spec, &group, &args.image, &env),
        Output::Hash => {
            hex::encode(sdl::hash(&sdl::manifest(spec, &group, &args.image, &env))) + "\n"
        }
    })
}

/// The most one node may cost a month, as far as the manifest says, and where that comes from.
fn price(spec: &Spec) -> (Uact, String) {
    let share =
        spec.budget.max_per_month.map(|month| Uact(month.0.0 / u64::from(spec.nodes.max(1))));
    match (spec.placement.max_price, share) {
        (Some(price), _) => (price.0, format!("placement.maxPrice, {price} a month")),
        (None, Some(share)) => {
            (share, format!("an equal share of budget.maxPerMonth, {share} a month"))
        }
        (None, None) => {
            (SHOWN_PRICE, format!("the operator's budget decides; {SHOWN_PRICE} a month is shown"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(output: Output, node: u32) -> SdlArgs {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/quickstart.yaml").into();
        SdlArgs { file, node, output, image: PLACEHOLDER_IMAGE.into() }
    }

    #[test]
    fn the_hash_is_the_one_of_the_manifest_shown() {
        let manifest = run(&args(Output::Manifest, 1)).expect("renders");
        assert_eq!(
            run(&args(Output::Hash, 1)).expect("renders"),
            format!("{}\n", hex::encode(sdl::hash(&manifest)))
        );
        assert!(manifest.contains("ar-xxxxxx-cache-1-xxxx"));
    }

    #[test]
    fn a_node_that_is_not_there_is_refused() {
        assert!(matches!(run(&args(Output::Sdl, 3)), Err(SdlError::Node { node: 3, nodes: 3 })));
    }
}
