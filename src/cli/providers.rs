//! `akash-redis devnet providers`: the local market's providers and tailnet as clients of a chain
//! that runs elsewhere.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::devnet::{DevnetDir, DevnetError, first_process};
use super::local::{self, OperatorChain};
use crate::api::quantity::Span;
use crate::devnet::account::{Account, AccountError};
use crate::devnet::distance::Distance;
use crate::devnet::faults::MarketFaults;
use crate::devnet::foreign::{Foreign, ForeignError};
use crate::devnet::market;
use crate::devnet::net::NetError;
use crate::devnet::relay::{self, Peer, RelayError};
use crate::devnet::sandbox::{self, Sandbox};
use crate::devnet::tailnet::{self, Tailnet};

/// Socket through which the sandbox reaches the chain.
const SOCKET: &str = "chain.sock";
/// Tells for which chain a directory is.
const CHAIN_FILE: &str = "chain-id";

/// Flags of `devnet providers`.
#[derive(Debug, clap::Args)]
pub struct Providers {
    /// Where they and the operator keep their files.
    #[command(flatten)]
    pub location: DevnetDir,
    /// gRPC address of a node of the chain, `http://` or `https://`.
    #[arg(long, value_name = "URL")]
    pub grpc: String,
    /// Chain id; a node of another chain is refused.
    #[arg(long, value_name = "ID")]
    pub chain_id: String,
    /// Accounts, one a line: `provider INDEX WORDS...`, and once `tenant 0 WORDS...` for the
    /// operator's wallet.
    #[arg(long, value_name = "FILE")]
    pub keys: PathBuf,
    /// Time between blocks, e.g. 6s, by which prices per month become prices per block; measured
    /// when it is not given.
    #[arg(long, value_name = "TIME")]
    pub block_time: Option<Span>,
    /// How far apart nodes are.
    #[command(flatten)]
    pub distance: Option<Distance>,
}

/// Why there are no providers.
#[derive(Debug, thiserror::Error)]
pub enum ProvidersError {
    /// The file of accounts cannot be read.
    #[error("the accounts in {} cannot be read; name another file with --keys", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line of it is wrong.
    #[error("line {line} of {} is not understood: {why}; write it like `provider 0 word word ...`", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong; never the words.
        why: String,
    },
    /// Nobody would bid.
    #[error("{} names no provider; give each a line `provider INDEX WORDS...`", .0.display())]
    Nobody(PathBuf),
    /// The directory belongs to another chain.
    #[error("{} has the files of a market on {found}; name another directory with --dir", dir.display())]
    OtherChain {
        /// Which.
        dir: PathBuf,
        /// That chain.
        found: String,
    },
    /// The chain.
    #[error(transparent)]
    Foreign(#[from] ForeignError),
    /// The way to it.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The sandbox's network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A provider.
    #[error(transparent)]
    Market(#[from] market::MarketError),
}

/// The accounts of a file.
struct Keys {
    providers: Vec<Account>,
    /// Words of the operator's wallet.
    tenant: Option<String>,
}

impl Keys {
    fn read(path: &Path) -> Result<Self, ProvidersError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ProvidersError::Read { path: path.to_owned(), source })?;
        let mut keys = Self { providers: Vec::new(), tenant: None };
        for (number, line) in text.lines().enumerate().map(|(n, line)| (n + 1, line.trim())) {
            if !line.is_empty() && !line.starts_with('#') {
                keys.take(line).map_err(|why| ProvidersError::Line {
                    path: path.to_owned(),
                    line: number,
                    why,
                })?;
            }
        }
        if keys.providers.is_empty() {
            Err(ProvidersError::Nobody(path.to_owned()))
        } else {
            Ok(keys)
        }
    }

    fn take(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split_whitespace();
        let (role, index) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let index: u32 = index
            .parse()
            .map_err(|_| "the second word is the number of an account, usually 0".to_owned())?;
        let phrase = words.collect::<Vec<_>>().join(" ");
        let account = Account::from_mnemonic(&phrase, index).map_err(|error| match error {
            AccountError::Mnemonic(_) => {
                "the rest is no phrase of 12 to 24 English words with a right check sum".to_owned()
            }
            AccountError::Key => error.to_string(),
        })?;
        match (role, index) {
            ("provider", _)
                if self.providers.iter().any(|other| other.address() == account.address()) =>
            {
                return Err("this provider was named before".to_owned());
            }
            ("provider", _) => self.providers.push(account),
            ("tenant", 0) if self.tenant.is_none() => self.tenant = Some(phrase),
            ("tenant", 0) => return Err("there is one tenant only".to_owned()),
            ("tenant", _) => return Err("the operator uses account 0 of its phrase".to_owned()),
            _ => return Err("the first word is `provider` or `tenant`".to_owned()),
        }
        Ok(())
    }
}

/// Runs `devnet providers`.
pub async fn run(args: Providers) -> Result<ExitCode, DevnetError> {
    let keys = Keys::read(&args.keys)?;
    let peer = Peer::of_url(&args.grpc).map_err(ProvidersError::from)?;
    if sandbox::inside() {
        return run_inside(&args, keys, &peer).await;
    }
    let dir = &args.location.dir;
    let failed =
        |what: &str, source| DevnetError::Io { what: format!("{what} {}", dir.display()), source };
    tailnet::peers_dir()?;
    if first_process(dir).is_some() {
        return Err(DevnetError::Up { dir: dir.clone() });
    }
    Foreign::new(&args.grpc)
        .map_err(ProvidersError::from)?
        .check(&args.chain_id)
        .await
        .map_err(ProvidersError::from)?;
    std::fs::create_dir_all(dir).map_err(|e| failed("making", e))?;
    claim(dir, &args.chain_id)?;
    let absolute =
        std::path::absolute(&args.keys).map_err(|e| failed("finding the accounts for", e))?;
    let mut arguments: Vec<OsString> =
        vec!["devnet".into(), "providers".into(), "--dir".into(), dir.into(), "--grpc".into()];
    arguments.extend([
        OsString::from(&args.grpc),
        "--chain-id".into(),
        OsString::from(&args.chain_id),
        "--keys".into(),
        absolute.into(),
    ]);
    if let Some(time) = &args.block_time {
        arguments.extend([OsString::from("--block-time"), time.to_string().into()]);
    }
    arguments.extend(args.distance.iter().flat_map(Distance::flags).map(OsString::from));
    tokio::select! {
        ended = sandbox::enter(&arguments) => Ok(ended?),
        Err(error) = relay::outside(peer, dir.join(SOCKET)) => Err(ProvidersError::from(error).into()),
    }
}

/// One directory is for one chain: its store knows deployments of no other.
fn claim(dir: &Path, chain_id: &str) -> Result<(), DevnetError> {
    let path = dir.join(CHAIN_FILE);
    let found = std::fs::read_to_string(&path).ok();
    let found = found
        .or_else(|| dir.join("operator.yaml").exists().then(|| "a chain of its own".to_owned()));
    match found {
        Some(found) if found != chain_id => {
            Err(ProvidersError::OtherChain { dir: dir.to_owned(), found }.into())
        }
        Some(_) => Ok(()),
        None => std::fs::write(&path, chain_id).map_err(|source| DevnetError::Io {
            what: format!("writing {}", path.display()),
            source,
        }),
    }
}

async fn run_inside(args: &Providers, keys: Keys, peer: &Peer) -> Result<ExitCode, DevnetError> {
    let dir = &args.location.dir;
    let sandbox = Sandbox::set_up().await?;
    let program = std::env::current_exe()
        .map_err(|e| DevnetError::Io { what: "finding this program".to_owned(), source: e })?;
    let net = market::set_up_net(args.distance).await.map_err(ProvidersError::from)?;
    relay::inside(peer, &net, &dir.join(SOCKET)).await.map_err(ProvidersError::from)?;
    let foreign = Foreign::new(&args.grpc).map_err(ProvidersError::from)?;
    let block_every = match args.block_time {
        Some(Span(time)) => time,
        None => foreign.block_time().await.map_err(ProvidersError::from)?,
    };
    let tailnet = Tailnet::start(&dir.join("tailnet"), &[]).await?;
    let settings = local::market_settings(
        &program,
        dir,
        &tailnet,
        block_every,
        &local::LocalOptions::default(),
    )?;
    let count = keys.providers.len();
    let providers =
        market::start_providers(&settings, &net, &foreign.channel(), keys.providers, &sandbox.stop)
            .await;
    let providers = providers.map_err(ProvidersError::from)?;
    let controls = providers.iter().map(market::LocalProvider::control).collect();
    let faults =
        MarketFaults { chain: None, providers: controls, usual_deposit: 0, net: Some(net.clone()) };
    local::serve_faults(faults, dir, &sandbox.stop)?;
    let chain = OperatorChain {
        chain_id: &args.chain_id,
        grpc: &args.grpc,
        mnemonic: keys.tenant.as_deref(),
        block_every,
    };
    local::write_settings(dir, &chain)?;
    greet(args, &program, count, block_every, keys.tenant.is_some());
    sandbox.stop.cancelled().await;
    drop(providers);
    Ok(ExitCode::SUCCESS)
}

fn greet(args: &Providers, program: &Path, count: usize, block_every: Duration, tenant: bool) {
    let (program, dir) = (program.display(), args.location.dir.display());
    println!(
        "{count} providers are up on {} at {} until Ctrl-C; a block takes {} ms there.",
        args.chain_id,
        args.grpc,
        block_every.as_millis()
    );
    if !tenant {
        println!(
            "Put the phrase of the operator's wallet into {dir}/mnemonic (mode 0600) first: --keys names no tenant."
        );
    }
    println!("In other terminals:");
    println!("  export AKASH_REDIS_DEVNET_DIR={dir} AKASH_REDIS_SOCKET={dir}/operator.sock");
    println!("  {program} devnet exec {program} operator --config {dir}/operator.yaml");
    println!("  CACHE_APP_PASSWORD=secret {program} apply -f manifests/quickstart.yaml --wait");
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

    fn read(text: &str) -> Result<Keys, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("keys");
        std::fs::write(&path, text).expect("written");
        Keys::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn accounts_are_read_a_line_each() {
        let keys = read(&format!(
            "# whose\ntenant 0 {WORDS}\n\nprovider 1 {WORDS}\nprovider  2 {WORDS}\n"
        ))
        .expect("good");
        assert_eq!((keys.providers.len(), keys.tenant.as_deref()), (2, Some(WORDS)));
        assert_ne!(keys.providers[0].address(), keys.providers[1].address());
    }

    #[test]
    fn a_wrong_line_is_named_without_its_words() {
        for (text, line, says) in [
            (format!("provider one {WORDS}"), 1, "number of an account"),
            (format!("\nprovider 1 {WORDS} zoo"), 2, "no phrase"),
            (format!("customer 1 {WORDS}"), 1, "`provider` or `tenant`"),
            (format!("tenant 3 {WORDS}"), 1, "account 0"),
            (format!("provider 1 {WORDS}\nprovider 1 {WORDS}"), 2, "named before"),
        ] {
            let error = read(&text).err().expect("wrong");
            assert!(
                error.starts_with(&format!("line {line} of "))
                    && error.contains(says)
                    && !error.contains("abandon"),
                "{error}"
            );
        }
        assert!(
            read(&format!("tenant 0 {WORDS}")).err().expect("nobody").contains("names no provider")
        );
    }

    #[test]
    fn a_directory_is_for_one_chain() {
        let dir = tempfile::tempdir().expect("a directory");
        claim(dir.path(), "a-1").expect("new");
        claim(dir.path(), "a-1").expect("the same");
        assert!(
            claim(dir.path(), "b-1").expect_err("another").to_string().contains("a market on a-1")
        );
        let local = tempfile::tempdir().expect("a directory");
        std::fs::write(local.path().join("operator.yaml"), "").expect("written");
        assert!(
            claim(local.path(), "a-1").is_err(),
            "the directory of a market with a chain of its own"
        );
    }
}
