//! Chunk streams: whatever happens to the frames on their way, what comes out is the beginning of what went in.

use std::sync::OnceLock;

use murmur_crypto::chunk::{ChunkCipher, ChunkFrame, StreamKey};

const STREAM: [u8; 16] = [1; 16];
const PLAIN: [&[u8]; 5] = [b"first", b"second, longer", b"", b"fourth", b"and the last"];

struct Original {
    cipher: ChunkCipher,
    frames: Vec<ChunkFrame>,
    /// Of another stream under the same key.
    foreign: Vec<ChunkFrame>,
}

fn original() -> &'static Original {
    static ORIGINAL: OnceLock<Original> = OnceLock::new();
    ORIGINAL.get_or_init(|| {
        let key = StreamKey::from_bytes(&[7; 64]);
        let frames = |stream_id: [u8; 16], nonce: [u8; 19]| -> Vec<ChunkFrame> {
            let cipher = ChunkCipher::new(&key, &stream_id, &nonce);
            let frame = |(index, plain): (u32, &&[u8])| {
                let last = index == 4;
                let ciphertext = cipher.encrypt(index, last, plain).unwrap().into();
                ChunkFrame { stream_id, index, last, ciphertext }
            };
            (0..).zip(&PLAIN).map(frame).collect()
        };
        Original {
            frames: frames(STREAM, [2; 19]),
            foreign: frames([9; 16], [2; 19]),
            cipher: ChunkCipher::new(&key, &STREAM, &[2; 19]),
        }
    })
}

/// Plays the input as a script of what reaches the recipient: four bytes a frame.
pub(super) fn chunk_reassemble(bytes: &[u8]) {
    if let Ok(frame) = ChunkFrame::decode(bytes.to_vec()) {
        assert_eq!(ChunkFrame::decode(frame.encode()).as_ref(), Ok(&frame), "it does not read back");
    }
    let original = original();
    let (mut text, mut next, mut is_done) = (Vec::new(), 0_u32, false);
    for step in bytes.chunks_exact(4) {
        let frame = altered(original, [step[0], step[1], step[2], step[3]]);
        let Ok(frame) = ChunkFrame::decode(frame) else { continue };
        // PROTOCOL §4.6: only the next chunk of this stream is taken, and nothing follows the last.
        if is_done || frame.stream_id != STREAM || frame.index != next {
            continue;
        }
        if let Ok(plain) = original.cipher.decrypt(frame.index, frame.last, &frame.ciphertext) {
            text.extend_from_slice(&plain);
            next += 1;
            is_done = frame.last;
        }
    }
    let whole = PLAIN.concat();
    assert!(whole.starts_with(&text), "something else came out");
    assert_eq!(text, PLAIN[..usize::try_from(next).unwrap()].concat());
    assert!(!is_done || text == whole, "cut short, and called complete");
}

/// One of the original frames, perhaps changed.
fn altered(original: &Original, [which, how, at, bits]: [u8; 4]) -> Vec<u8> {
    let frames = if how & 0x80 == 0 { &original.frames } else { &original.foreign };
    let mut frame = frames[usize::from(which) % frames.len()].clone();
    let mut ciphertext = frame.ciphertext.to_vec();
    match how & 0x0f {
        1 => frame.last = !frame.last,
        2 => frame.index = u32::from(at),
        3 => frame.stream_id = STREAM,
        4 => {
            let place = usize::from(at) % ciphertext.len();
            ciphertext[place] ^= bits;
        }
        5 => ciphertext.truncate(usize::from(at)),
        6 => ciphertext.extend([bits; 3]),
        7 => ciphertext = frames[usize::from(at) % frames.len()].ciphertext.to_vec(),
        8 => {
            let mut encoded = frame.encode();
            let place = usize::from(at) % encoded.len();
            encoded[place] ^= bits;
            return encoded;
        }
        _ => {}
    }
    frame.ciphertext = ciphertext.into();
    frame.encode()
}
