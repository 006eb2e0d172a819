//! What ES256 costs by itself.

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};

/// The time of each, on one thread.
pub(crate) struct Bare {
    pub(crate) sign: Duration,
    pub(crate) verify: Duration,
}

/// Signs and verifies what is as long as a token.
pub(crate) fn measure(lasts: Duration) -> Bare {
    let (key, rng) = (generate(), SystemRandom::new());
    let message = [7; 700];
    let signature = key.sign(&rng, &message).expect("a signature");
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key().as_ref().to_vec());
    Bare {
        sign: each(lasts, || {
            black_box(key.sign(&rng, black_box(&message)).expect("a signature"));
        }),
        verify: each(lasts, || {
            public.verify(black_box(&message), signature.as_ref()).expect("its signature")
        }),
    }
}

pub(crate) fn generate() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key")
}

fn each(lasts: Duration, mut work: impl FnMut()) -> Duration {
    let (begun, mut times) = (Instant::now(), 0);
    while begun.elapsed() < lasts {
        work();
        times += 1;
    }
    begun.elapsed() / times
}
