//! BLAKE3, the hash of contents (section 2 of its paper). It is simple and slow, because the
//! simulator's files are small.

const IV: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

const PERMUTATION: [usize; 16] = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];

const CHUNK_START: u32 = 1;
const CHUNK_END: u32 = 2;
const PARENT: u32 = 4;
const ROOT: u32 = 8;

const BLOCK: usize = 64;
const CHUNK: usize = 1024;

/// The input of a last compression, which may be that of the root.
struct Output {
    chain: [u32; 8],
    block: [u32; 16],
    counter: u64,
    length: u32,
    flags: u32,
}

/// The hash as 64 hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut root = tree(bytes, 0);
    root.flags |= ROOT;
    let words = root.compress();
    let bytes = words[..8].iter().flat_map(|word| word.to_le_bytes());
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// A subtree: its left part has the largest power of two of chunks that leaves a right part.
fn tree(bytes: &[u8], first: u64) -> Output {
    if bytes.len() <= CHUNK {
        return chunk(bytes, first);
    }
    let chunks = bytes.len().div_ceil(CHUNK);
    let left = chunks.next_power_of_two() / 2;
    let (before, after) = bytes.split_at(left * CHUNK);
    let mut block = [0; 16];
    block[..8].copy_from_slice(&tree(before, first).compress()[..8]);
    block[8..].copy_from_slice(&tree(after, first + left as u64).compress()[..8]);
    Output { chain: IV, block, counter: 0, length: 64, flags: PARENT }
}

fn chunk(bytes: &[u8], counter: u64) -> Output {
    let mut chain = IV;
    let mut flags = CHUNK_START;
    let mut rest = bytes;
    loop {
        let (now, later) = rest.split_at(rest.len().min(BLOCK));
        let mut padded = [0_u8; BLOCK];
        padded[..now.len()].copy_from_slice(now);
        let mut block = [0_u32; 16];
        for (word, bytes) in block.iter_mut().zip(padded.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        let length = u32::try_from(now.len()).unwrap_or(64);
        let mut output = Output { chain, block, counter, length, flags };
        if later.is_empty() {
            output.flags |= CHUNK_END;
            return output;
        }
        chain.copy_from_slice(&output.compress()[..8]);
        flags = 0;
        rest = later;
    }
}

impl Output {
    fn compress(&self) -> [u32; 16] {
        let [low, high] = [self.counter & 0xffff_ffff, self.counter >> 32]
            .map(|half| u32::try_from(half).unwrap_or(0));
        let mut state = [0_u32; 16];
        state[..8].copy_from_slice(&self.chain);
        state[8..12].copy_from_slice(&IV[..4]);
        state[12..].copy_from_slice(&[low, high, self.length, self.flags]);
        let mut message = self.block;
        for round in 0..7 {
            mix_all(&mut state, &message);
            if round < 6 {
                message = PERMUTATION.map(|from| message[from]);
            }
        }
        for at in 0..8 {
            state[at] ^= state[at + 8];
            state[at + 8] ^= self.chain[at];
        }
        state
    }
}

fn mix_all(state: &mut [u32; 16], message: &[u32; 16]) {
    const LANES: [[usize; 4]; 8] = [
        [0, 4, 8, 12],
        [1, 5, 9, 13],
        [2, 6, 10, 14],
        [3, 7, 11, 15],
        [0, 5, 10, 15],
        [1, 6, 11, 12],
        [2, 7, 8, 13],
        [3, 4, 9, 14],
    ];
    for (lane, words) in LANES.iter().zip(message.chunks_exact(2)) {
        mix(state, *lane, words[0], words[1]);
    }
}

fn mix(state: &mut [u32; 16], [a, b, c, d]: [usize; 4], x: u32, y: u32) {
    for (word, (first, second)) in [(x, (16, 12)), (y, (8, 7))] {
        state[a] = state[a].wrapping_add(state[b]).wrapping_add(word);
        state[d] = (state[d] ^ state[a]).rotate_right(first);
        state[c] = state[c].wrapping_add(state[d]);
        state[b] = (state[b] ^ state[c]).rotate_right(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_blake3() {
        // From the official test vectors: bytes that count up to 250 and start again.
        let input = |len: usize| (0..len).map(|at| (at % 251) as u8).collect::<Vec<u8>>();
        for (len, expected) in [
            (0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
            (1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"),
            (1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"),
            (1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"),
            (3072, "b98cb0ff3623be03326b373de6b9095218513e64f1ee2edd2525c7ad1e5cffd2"),
        ] {
            assert_eq!(hex(&input(len)), expected, "{len}");
        }
    }
}
