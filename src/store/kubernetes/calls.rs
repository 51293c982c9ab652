//! One call to the apiserver: with a time-out, repeated for a short while where that may help, and
//! its errors as ours.

use std::io;
use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error};

use super::super::StoreError;
use super::watches::SILENT;
use crate::config::KubernetesHome;
use crate::error_chain::error_chain;
use crate::retry::{MAX_RETRY, retry};

/// One try takes no longer.
const TRY: Duration = Duration::from_secs(5);
/// A connection that does not come up by then is given up.
const CONNECT: Duration = Duration::from_secs(3);

/// A client by the settings: the file that they name, else what a pod has, else what `kubectl`
/// would use.
pub(super) async fn client(home: &KubernetesHome) -> Result<Client, StoreError> {
    let unusable = |error: &(dyn std::error::Error + 'static)| {
        StoreError::Failed(format!(
            "the way to Kubernetes cannot be used: {}; name a file in store.kubernetes.kubeconfig, or run in a pod with a service account",
            error_chain(error)
        ))
    };
    let mut config = match &home.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(|e| unusable(&e))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(|e| unusable(&e))?
        }
        None => Config::infer().await.map_err(|e| unusable(&e))?,
    };
    bound(&mut config);
    config.read_timeout = Some(SILENT);
    config.reset_reader_on_write = true;
    Client::try_from(config).map_err(|e| unusable(&e))
}

/// A client as `kubectl` has it, and the namespace that it means.
pub(super) async fn client_of_person(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
) -> Result<(Client, String), StoreError> {
    let unusable = |error: &(dyn std::error::Error + 'static)| {
        StoreError::Failed(format!(
            "the kubeconfig cannot be used: {}; name another one with --kubeconfig, or one of its contexts with --context",
            error_chain(error)
        ))
    };
    let file = kubeconfig.map_or_else(Kubeconfig::read, Kubeconfig::read_from);
    let file = file.map_err(|e| unusable(&e))?;
    let options =
        KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(file, &options).await;
    let mut config = config.map_err(|e| unusable(&e))?;
    bound(&mut config);
    let namespace = config.default_namespace.clone();
    Ok((Client::try_from(config).map_err(|e| unusable(&e))?, namespace))
}

/// Nothing of a client waits longer than its caller knows of. By itself it would try a call again
/// that an apiserver which starts or is overloaded refuses, after as long as that says or for more
/// than a minute, a watch too; whoever calls does so with limits.
fn bound(config: &mut Config) {
    config.connect_timeout = Some(CONNECT);
    config.default_retry = false;
}

/// Calls until it is answered, for [`MAX_RETRY`] at most. A call that changes something may have
/// been carried out when it is repeated: the version that it names makes the second one a conflict.
pub(super) async fn call<T, F, Fut>(op: F) -> Result<T, Error>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, Error>>,
{
    retry(MAX_RETRY, is_transient, || once(op())).await
}

/// Calls once.
pub(super) async fn once<T>(op: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(TRY, op).await.unwrap_or_else(|_| {
        let text = format!("the apiserver did not answer within {} s", TRY.as_secs());
        Err(Error::Service(Box::new(io::Error::new(io::ErrorKind::TimedOut, text))))
    })
}

fn is_transient(error: &Error) -> bool {
    match error {
        Error::Api(status) => status.code >= 500 || status.code == 429,
        Error::HyperError(_) | Error::Service(_) | Error::ReadEvents(_) | Error::HttpError(_) => {
            true
        }
        _ => false,
    }
}

/// The code of an answer that is a refusal.
fn code(error: &Error) -> u16 {
    if let Error::Api(status) = error { status.code } else { 0 }
}

/// It is another one by now, or there already.
pub(super) fn is_conflict(error: &Error) -> bool {
    code(error) == 409
}

/// There is none.
pub(super) fn is_missing(error: &Error) -> bool {
    code(error) == 404
}

/// The apiserver does not take it as it is.
pub(super) fn is_refused(error: &Error) -> bool {
    matches!(code(error), 400 | 403 | 422)
}

/// One sentence: an answer in the apiserver's own words.
pub(super) fn sentence(error: &Error) -> String {
    match error {
        Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => error_chain(other),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for use in map_err")]
pub(super) fn failed(error: Error) -> StoreError {
    StoreError::Failed(format!("the apiserver: {}", sentence(&error)))
}
