//! Mutations: of bytes that are full of lengths and identifiers, and of JSON that is full of such bytes.

mod json;

pub(crate) use json::mutate as mutate_json;

use crate::pool::Pool;
use rootbound_swtpm_tests::random::Random;

const BYTES: [u8; 9] = [0x00, 0x01, 0x03, 0x04, 0x10, 0x7f, 0x80, 0xfe, 0xff];

/// Identifiers of TPM structures, and lengths at the edge of what is allowed.
const WORDS: [u16; 34] = [
    0x0000, 0x0001, 0x0004, 0x0006, 0x000b, 0x000c, 0x000d, 0x0010, 0x0014, 0x0016, 0x0018, 0x0020, 0x0022,
    0x0023, 0x0030, 0x0040, 0x0042, 0x0043, 0x0080, 0x0100, 0x0101, 0x0200, 0x0400, 0x0800, 0x7fff, 0x8000,
    0x8014, 0x8015, 0x8017, 0x8018, 0x801a, 0x801c, 0xfffe, 0xffff,
];

const LONG_WORDS: [u32; 9] = [0, 1, 2, 4, 5, 0xff54_4347, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

/// An input out of the pool with one to four mutations.
pub(crate) fn mutate(pool: &Pool, limit: usize, random: &mut Random) -> Vec<u8> {
    let mut input = pool.pick(random).to_vec();
    for _ in 0..=random.below(4) {
        step(&mut input, pool, random);
    }
    input.truncate(limit);
    input
}

/// One mutation.
pub(crate) fn step(input: &mut Vec<u8>, pool: &Pool, random: &mut Random) {
    let at = random.below(input.len());
    match random.below(12) {
        0 | 1 => change(input, at, |byte| *byte ^= 1 << random.below(8)),
        2 => change(input, at, |byte| *byte = *random.pick(&BYTES)),
        3 => change(input, at, |byte| *byte = random.byte()),
        4 => overwrite(input, at, &random.pick(&WORDS).to_be_bytes()),
        5 => overwrite(input, at, &random.pick(&LONG_WORDS).to_be_bytes()),
        6 => length_field(input, at, random),
        7 => input.truncate(at),
        8 => drop(input.drain(random.range(input.len()))),
        9 => {
            let copy = input[random.range(input.len())].to_vec();
            input.splice(at..at, copy);
        }
        10 => {
            let new: Vec<u8> = (0..random.below(9)).map(|_| random.byte()).collect();
            input.splice(at..at, new);
        }
        _ => splice(input, at, pool.pick(random), random),
    }
}

fn change(input: &mut [u8], at: usize, change: impl FnOnce(&mut u8)) {
    if let Some(byte) = input.get_mut(at) {
        change(byte);
    }
}

fn overwrite(input: &mut [u8], at: usize, with: &[u8]) {
    for (to, from) in input.iter_mut().skip(at).zip(with) {
        *to = *from;
    }
}

/// Makes the UINT16 at a position point to the end of the input, past it, or one beside where it points.
fn length_field(input: &mut [u8], at: usize, random: &mut Random) {
    let rest = u16::try_from(input.len().saturating_sub(at + 2)).unwrap_or(u16::MAX);
    let old = match input.get(at..at + 2) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        _ => return,
    };
    let choices =
        [rest, rest.wrapping_add(1), rest.wrapping_sub(1), old.wrapping_add(1), old.wrapping_sub(1)];
    overwrite(input, at, &random.pick(&choices).to_be_bytes());
}

/// The front of one input and the end of another.
fn splice(input: &mut Vec<u8>, at: usize, other: &[u8], random: &mut Random) {
    let from = if random.one_in(2) { at.min(other.len()) } else { random.below(other.len()) };
    input.truncate(at);
    input.extend_from_slice(&other[from..]);
}
