//! Masks the payloads that clients send (RFC 6455 section 5.3).

/// Masks or unmasks `data`, which begins `offset` bytes into the payload masked with `key`.
pub(super) fn apply_mask(data: &mut [u8], mut key: [u8; 4], offset: usize) {
    key.rotate_left(offset % 4);
    let [a, b, c, d] = key;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = data.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(word.to_ne_bytes()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::apply_mask;

    #[test]
    fn masking_goes_on_where_a_read_ended() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let plain: Vec<u8> = (0..=99).collect();
        let wanted: Vec<u8> = plain.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
        for cut in 0..plain.len() {
            let mut masked = plain.clone();
            let (head, tail) = masked.split_at_mut(cut);
            apply_mask(head, key, 0);
            apply_mask(tail, key, cut);
            assert_eq!(masked, wanted, "cut at {cut}");
        }
    }
}
