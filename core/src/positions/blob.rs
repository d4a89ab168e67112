//! Sets of positions: the form of the blob `deletion-vector-v1` of the Puffin specification, in which sets by value are too.

use roaring::RoaringTreemap;
use tarndb_catalog::{Error, Result};

/// Begins the bitmap.
const MAGIC: [u8; 4] = [0xd1, 0xd3, 0x39, 0x64];

fn damaged(what: &str) -> Error {
    Error::data_invalid(format!("a set of positions is damaged: {what}"))
}

/// The positions in a blob: its length, the magic number, the bitmap, and the checksum of both. A bitmap without any of that,
/// which DuckDB 1.5.3 wrote, is taken too.
pub(crate) fn decode(blob: &[u8]) -> Result<RoaringTreemap> {
    let Some((length, rest)) = blob.split_first_chunk::<4>().filter(|(_, rest)| rest.starts_with(&MAGIC)) else {
        return bitmap(blob.strip_prefix(&MAGIC).unwrap_or(blob));
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| damaged("it is too long"))?;
    let (checked, tail) = rest.split_at_checked(length).ok_or_else(|| damaged("it is truncated"))?;
    let checksum = tail.first_chunk::<4>().ok_or_else(|| damaged("it has no checksum"))?;
    if crc32fast::hash(checked) != u32::from_be_bytes(*checksum) {
        return Err(damaged("its checksum is wrong"));
    }
    bitmap(checked.strip_prefix(&MAGIC).unwrap_or(checked))
}

/// The blob with these positions.
///
/// # Errors
/// `Unsupported` when it would be longer than its own length can say.
pub(crate) fn encode(positions: &RoaringTreemap) -> Result<Vec<u8>> {
    let mut positions = positions.clone();
    positions.optimize();
    let mut blob = vec![0; 4];
    blob.extend_from_slice(&MAGIC);
    positions.serialize_into(&mut blob).map_err(|e| Error::internal("a bitmap could not be written").with_source(e))?;
    let checked = blob.get(4..).unwrap_or_default();
    let length = u32::try_from(checked.len()).map_err(|_| Error::unsupported("a set of positions of more than 4 GiB"))?;
    let checksum = crc32fast::hash(checked);
    if let Some(head) = blob.first_chunk_mut::<4>() {
        *head = length.to_be_bytes();
    }
    blob.extend_from_slice(&checksum.to_be_bytes());
    Ok(blob)
}

fn bitmap(bytes: &[u8]) -> Result<RoaringTreemap> {
    let mut rest = bytes;
    let positions = RoaringTreemap::deserialize_from(&mut rest);
    let positions = positions.map_err(|e| damaged("its bitmap cannot be read").with_source(e))?;
    if rest.is_empty() { Ok(positions) } else { Err(damaged("something follows its bitmap")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_read_and_checked() {
        let positions: RoaringTreemap = [0, 1, 7, 1 << 33].into_iter().collect();
        let whole = encode(&positions).unwrap();
        assert_eq!(decode(&whole).unwrap(), positions);
        let mut bare = Vec::new();
        positions.serialize_into(&mut bare).unwrap();
        assert_eq!(decode(&bare).unwrap(), positions);
        for end in 0..whole.len() {
            assert!(decode(&whole[..end]).is_err(), "truncated at {end}");
        }
        assert!(decode(&[0; 40]).is_err(), "zeros, which a lost power can leave");
        for byte in 8..whole.len() {
            let mut flipped = whole.clone();
            flipped[byte] ^= 1;
            assert!(decode(&flipped).is_err(), "byte {byte} is wrong");
        }
    }
}
