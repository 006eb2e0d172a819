//! SHA-256 of short messages, without what a hash in progress costs: a list of 100,000 entries has 200,000 of them, of two
//! or three blocks each. The compression function is that of `sha2`, which uses the processor's instructions.

use sha2::block_api::compress256;

/// FIPS 180-4, 5.3.3.
const START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// What ends a message of 64 bytes (FIPS 180-4, 5.1.1): a one, zeros, and its length of 512 bits.
const END_OF_BLOCK: [u8; 64] = {
    let mut end = [0; 64];
    end[0] = 0x80;
    end[62] = 2;
    end
};

/// The hash of a message.
#[inline]
pub(super) fn of(message: &[u8]) -> [u8; 32] {
    let mut state = START;
    let (blocks, rest) = message.as_chunks::<64>();
    compress256(&mut state, blocks);
    let mut end = [[0; 64]; 2];
    if let Some((to, after)) = end.as_flattened_mut().split_at_mut_checked(rest.len()) {
        to.copy_from_slice(rest);
        if let Some(one) = after.first_mut() {
            *one = 0x80;
        }
    }
    let bits = u64::try_from(message.len()).unwrap_or(u64::MAX).wrapping_mul(8).to_be_bytes();
    // Where the length does not fit behind the rest, there is another block.
    let one_is_enough = rest.len() < 56;
    let [first, second] = &mut end;
    let last = if one_is_enough { &mut *first } else { &mut *second };
    if let Some(length) = last.last_chunk_mut() {
        *length = bits;
    }
    if one_is_enough {
        compress256(&mut state, &[*first])
    } else {
        compress256(&mut state, &end)
    }
    bytes(state)
}

/// The hash of a message in two halves of 32 bytes: a PCR is extended.
#[inline]
pub(super) fn of_pair(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut block = [0; 64];
    let (to_left, to_right) = block.split_at_mut(32);
    to_left.copy_from_slice(left);
    to_right.copy_from_slice(right);
    let mut state = START;
    compress256(&mut state, &[block, END_OF_BLOCK]);
    bytes(state)
}

#[inline]
fn bytes(state: [u32; 8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, from) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *to = from.to_be_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_every_short_length_are_those_of_the_library() {
        let message: Vec<u8> = (0..=255).cycle().take(520).collect();
        for length in 0..message.len() {
            let message = &message[..length];
            assert_eq!(of(message), rootbound_common::crypto::sha256(&[message]), "{length} bytes");
        }
        let (left, right) = ([3; 32], [5; 32]);
        assert_eq!(of_pair(&left, &right), rootbound_common::crypto::sha256(&[&left, &right]));
    }
}
