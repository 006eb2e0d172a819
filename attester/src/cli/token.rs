//! `token` and `proof`: what a workload, or curl, needs to call a service.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use http::Method;
use rootbound_common::clock::{Clock as _, SystemClock};
use serde::Serialize;

use super::{Failure, Output, beside_the_daemon, json, runtime};
use crate::client::{Client, ClientIdentity};
use crate::config::Config;
use crate::keep::{StateConfig, View};
use crate::token::wish::{Action, Audience, Detail, HeldBy, Name, Permissions, Resource};
use crate::token::{Call, Nonce, Prover, TargetUrl, TokenText, TokenWish, Tokens, Wished};
use crate::tpm::{TctiConfig, Tpm};

const AFTER_TOKEN: &str = "\
Examples:
  token=$(rootbound-attester token --audience https://orders.example --action db:read)
  rootbound-attester token --audience https://orders.example --action db:read --resource-type database --resource orders
  rootbound-attester token --audience https://orders.example --binding certificate --output json
  rootbound-attester token --audience sts.amazonaws.com --jwt-svid

A token with --binding dpop is shown as `Authorization: DPoP TOKEN` with a proof for each call: `rootbound-attester proof`.
One with --binding certificate is shown as `Authorization: Bearer TOKEN` over TLS with the delivered certificate.";

const AFTER_PROOF: &str = "\
Example:
  rootbound-attester token --audience https://orders.example --action db:read > token
  proof=$(rootbound-attester proof --method GET --url https://orders.example/v1/orders --token-file token)
  curl -H \"Authorization: DPoP $(cat token)\" -H \"DPoP: $proof\" https://orders.example/v1/orders

A service takes a proof once. Where it answers with `DPoP-Nonce`, the next proof needs that: --nonce.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_TOKEN)]
pub(super) struct TokenArguments {
    /// For whom the token is; may be there several times
    #[arg(long, required = true, value_name = "NAME")]
    audience: Vec<Audience>,
    /// What it is to permit; may be there several times. Without it, `Act`
    #[arg(long, value_name = "ACTION")]
    action: Vec<Action>,
    /// To what, where that is not the audience itself
    #[arg(long, value_name = "ID", requires = "action")]
    resource: Option<Name>,
    /// Of which type that is
    #[arg(long, value_name = "TYPE", default_value = "resource", requires = "resource")]
    resource_type: Name,
    /// What the token is bound to
    #[arg(long, value_enum, default_value_t = Binding::Dpop)]
    binding: Binding,
    /// Good for one use, which the service learns by introspection
    #[arg(long)]
    one_time: bool,
    /// A JWT-SVID instead, which says who this machine is and permits nothing by itself. Whoever has it can show it
    #[arg(long, conflicts_with_all = ["action", "resource", "resource_type", "binding", "one_time"])]
    jwt_svid: bool,
}

/// What a token is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Binding {
    /// The key of the credential: each call takes a proof by the TPM
    Dpop,
    /// The certificate: calls go over mutual TLS
    Certificate,
}

#[derive(Debug, Args)]
#[command(after_help = AFTER_PROOF)]
pub(super) struct ProofArguments {
    /// Of the call, as it will be sent
    #[arg(long, value_parser = method)]
    method: Method,
    /// Of the call; query and fragment do not matter
    #[arg(long)]
    url: TargetUrl,
    /// The file with the token that goes with the call; `-` is standard input
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// What the service said last in `DPoP-Nonce`
    #[arg(long)]
    nonce: Option<Nonce>,
}

fn method(text: &str) -> Result<Method, String> {
    let none = || "a method is a word such as GET, of up to 32 capital letters".to_owned();
    let plain = (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase());
    Method::from_bytes(text.as_bytes()).ok().filter(|_| plain).ok_or_else(none)
}

pub(super) fn token(wanted: TokenArguments, config: Config, output: Output) -> Result<String, Failure> {
    let wish = wanted.wish()?;
    let client = Client::new(config.verifier)?;
    let tokens = |identity| Ok(Tokens::new(client, identity, Arc::new(SystemClock))?);
    let token = with_identity(config.state, config.tpm, tokens, async move |tokens: Tokens| {
        Ok(tokens.fetch(&wish).await?)
    })?;
    match output {
        Output::Json => json(&token),
        Output::Text => Ok(format!("{}\n", token.access_token.reveal())),
    }
}

pub(super) fn proof(wanted: ProofArguments, config: Config, output: Output) -> Result<String, Failure> {
    #[derive(Serialize)]
    struct Printed {
        proof: String,
    }

    let ProofArguments { method, url, token_file, nonce } = wanted;
    let token = read_token(&token_file)?;
    let prover = |identity| Ok(Prover::new(identity)?);
    let proof = with_identity(config.state, config.tpm, prover, async move |prover: Prover| {
        let call = Call { method: &method, url: &url, token: &token, nonce: nonce.as_ref() };
        Ok(prover.proof(&call, SystemClock.now()).await?)
    })?;
    match output {
        Output::Json => json(&Printed { proof }),
        Output::Text => Ok(proof + "\n"),
    }
}

impl TokenArguments {
    fn wish(self) -> Result<TokenWish, Failure> {
        let Self { audience, action, resource, resource_type, binding, one_time, jwt_svid } = self;
        if jwt_svid {
            return Ok(TokenWish::new(audience, Wished::JwtSvid)?);
        }
        let held_by = match binding {
            Binding::Dpop => HeldBy::Key,
            Binding::Certificate => HeldBy::Certificate,
        };
        let (scope, details) = match resource {
            Some(id) => (Vec::new(), vec![Detail::new(action, Resource { kind: resource_type, id })]),
            None => (action, Vec::new()),
        };
        let permissions = Permissions { held_by, scope, details, once: one_time };
        Ok(TokenWish::new(audience, Wished::AccessToken(permissions))?)
    }
}

fn read_token(path: &Path) -> Result<TokenText, Failure> {
    /// One more than a token has, and a line's end.
    const LIMIT: u64 = 16 * 1024 + 3;
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().take(LIMIT).read_to_string(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(LIMIT).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::Failed(format!("cannot read the token in {}: {error}", path.display())))?;
    let token = text.trim_end_matches(['\r', '\n']).to_owned();
    token.try_into().map_err(|error| Failure::Configuration(format!("{}: {error}", path.display())))
}

/// Does something with what is made of the credential and the TPM, and waits until the TPM is left.
fn with_identity<P, T>(
    state: StateConfig,
    tpm: TctiConfig,
    prepare: impl FnOnce(ClientIdentity) -> Result<P, Failure>,
    act: impl AsyncFnOnce(P) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let credential = View::open(&state.directory)?.credential()?;
    let credential = credential.ok_or_else(|| Failure::Failed("there is no credential yet".to_owned()))?;
    let tpm = Tpm::spawn(beside_the_daemon(tpm))?;
    let ending = tpm.ending();
    let prepared = prepare(ClientIdentity::new(tpm, &credential)?)?;
    let done = runtime()?.block_on(act(prepared));
    if !ending.wait(super::TPM_ENDS) {
        super::warn(super::TPM_AT_WORK);
    }
    done
}
