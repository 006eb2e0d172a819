//! How long one proof serves: until the verifier has another nonce, or no longer takes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as Turn;
use tokio::time::{Duration, Instant};

use super::answer::Endpoint;
use super::proof::Nonce;

/// A proof serves for at least so long after it was made, whatever nonces come meanwhile, unless it is refused: what the
/// verifier says must not keep the TPM busy. A nonce is taken for a minute at least after the next one is there.
const SERVES: Duration = Duration::from_secs(30);

/// A proof for requests of tokens.
#[derive(Debug)]
pub(super) struct Proof {
    text: String,
    endpoint: Endpoint,
    nonce: Option<Nonce>,
    made_at: Instant,
}

impl Proof {
    pub(super) fn new(text: String, endpoint: Endpoint, nonce: Option<Nonce>) -> Self {
        Self { text, endpoint, nonce, made_at: Instant::now() }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

/// The proof that is in use.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    known: Mutex<Known>,
    /// Whoever makes the next holds it.
    making: Turn<()>,
}

#[derive(Debug, Default)]
struct Known {
    proof: Option<Arc<Proof>>,
    /// What the verifier said last.
    nonce: Option<Nonce>,
}

/// What is known of a proof.
enum Found {
    Good(Arc<Proof>),
    /// It is taken for now; there is a newer nonce.
    Aged(Arc<Proof>),
    None,
}

impl Proofs {
    /// Notes a nonce that came with an answer.
    pub(super) fn note(&self, nonce: Nonce) {
        self.known().nonce = Some(nonce);
    }

    /// The proof in use, or another one where it is refused, for another endpoint, or has aged. While one is made, the others
    /// go on with the one that has aged.
    pub(super) async fn find_or_make<E>(
        &self,
        endpoint: &Endpoint,
        refused: Option<&Arc<Proof>>,
        make: impl AsyncFnOnce(Option<Nonce>) -> Result<Proof, E>,
    ) -> Result<Arc<Proof>, E> {
        let turn = match self.find(endpoint, refused) {
            Found::Good(proof) => return Ok(proof),
            Found::Aged(proof) => match self.making.try_lock() {
                Ok(turn) => turn,
                Err(_) => return Ok(proof),
            },
            Found::None => self.making.lock().await,
        };
        // Whoever had the turn before may have made it.
        if let Found::Good(proof) = self.find(endpoint, refused) {
            return Ok(proof);
        }
        let nonce = self.known().nonce.clone();
        let made = Arc::new(make(nonce).await?);
        self.known().proof = Some(Arc::clone(&made));
        drop(turn);
        Ok(made)
    }

    fn find(&self, endpoint: &Endpoint, refused: Option<&Arc<Proof>>) -> Found {
        let known = self.known();
        let Some(proof) = &known.proof else { return Found::None };
        let is_refused = refused.is_some_and(|refused| Arc::ptr_eq(refused, proof));
        if is_refused || proof.endpoint != *endpoint {
            return Found::None;
        }
        if proof.nonce == known.nonce || proof.made_at.elapsed() < SERVES {
            Found::Good(Arc::clone(proof))
        } else {
            Found::Aged(Arc::clone(proof))
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn nonce(text: &str) -> Nonce {
        text.parse().unwrap()
    }

    fn endpoint(host: &str) -> Endpoint {
        Endpoint::for_test(host)
    }

    /// Which nonce the proof that is to be used has, and whether it was made for this.
    async fn used(proofs: &Proofs, host: &str, refused: Option<&Arc<Proof>>) -> (Arc<Proof>, bool) {
        let mut made = false;
        let make = async |nonce| {
            made = true;
            Ok::<_, Infallible>(Proof::new("proof".to_owned(), endpoint(host), nonce))
        };
        let proof = proofs.find_or_make(&endpoint(host), refused, make).await.unwrap();
        (proof, made)
    }

    #[tokio::test(start_paused = true)]
    async fn a_proof_serves_until_there_is_a_newer_nonce_for_a_while() {
        let proofs = Proofs::default();
        proofs.note(nonce("1"));
        let (first, made) = used(&proofs, "a", None).await;
        assert!(made && first.nonce == Some(nonce("1")));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(!used(&proofs, "a", None).await.1, "the verifier has no other nonce");

        proofs.note(nonce("2"));
        let (second, made) = used(&proofs, "a", None).await;
        assert!(made && second.nonce == Some(nonce("2")));
        // A verifier that has another nonce in each answer does not keep the TPM busy.
        for number in 3..100 {
            proofs.note(nonce(&number.to_string()));
            assert!(!used(&proofs, "a", None).await.1);
        }
        tokio::time::advance(SERVES).await;
        let (third, made) = used(&proofs, "a", None).await;
        assert!(made && third.nonce == Some(nonce("99")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_proof_that_is_refused_or_for_elsewhere_is_made_anew_by_one_for_all() {
        let proofs = Proofs::default();
        let (first, _) = used(&proofs, "a", None).await;
        assert_eq!(first.nonce, None);
        proofs.note(nonce("1"));
        let (second, made) = used(&proofs, "a", Some(&first)).await;
        assert!(made && second.nonce == Some(nonce("1")));
        let (same, made) = used(&proofs, "a", Some(&first)).await;
        assert!(!made && Arc::ptr_eq(&same, &second), "another was made already");
        assert!(used(&proofs, "b", None).await.1);
    }

    #[tokio::test(start_paused = true)]
    async fn others_go_on_with_an_aged_proof_while_the_next_is_made() {
        let proofs = Proofs::default();
        let (first, _) = used(&proofs, "a", None).await;
        proofs.note(nonce("1"));
        tokio::time::advance(SERVES).await;
        let turn = proofs.making.lock().await;
        let (same, made) = used(&proofs, "a", None).await;
        assert!(!made && Arc::ptr_eq(&same, &first));
        drop(turn);
        assert!(used(&proofs, "a", None).await.1);
    }
}
