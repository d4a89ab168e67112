use std::io::{BufReader, Read, Result as IoResult, Seek, SeekFrom};

use exif::{In, Tag, Value};
use imagesize::ImageError;

use super::content::Content;
use super::{Annotation, Pairs, Wrong};

/// Values that are longer say nothing to a query.
const LONGEST_VALUE: usize = 1024;

/// Bytes of an image that are read for its size, and for its EXIF, at most: of some formats the reader would take all.
const READ_AT_MOST: u64 = 16 * 1024 * 1024;

/// A content of which not everything is read.
struct Bounded {
    content: Content,
    left: u64,
}

impl Bounded {
    fn of(content: &Content) -> Self {
        Self { content: content.clone(), left: READ_AT_MOST }
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        if self.left == 0 && self.content.stream_position()? < self.content.size() {
            return Err(std::io::Error::other(format!("what it tells is not within {READ_AT_MOST} bytes")));
        }
        let read = self.content.by_ref().take(self.left).read(buffer)?;
        self.left -= read as u64;
        Ok(read)
    }
}

impl Seek for Bounded {
    fn seek(&mut self, to: SeekFrom) -> IoResult<u64> {
        self.content.seek(to)
    }
}

/// Width, height and EXIF of an image.
pub(super) fn learn(content: &Content, annotation: &mut Annotation) -> Result<(), Wrong> {
    if !content.media_type().is_some_and(|media_type| media_type.starts_with("image/")) {
        return Ok(());
    }
    match imagesize::reader_size(BufReader::new(Bounded::of(content))) {
        Ok(size) => {
            annotation.image_width = Some(i32::try_from(size.width)?);
            annotation.image_height = Some(i32::try_from(size.height)?);
        }
        Err(ImageError::NotSupported) => {}
        Err(error) => return Err(error.into()),
    }
    annotation.exif = read_exif(content)?;
    Ok(())
}

/// The fields of the image itself, not of its small copy; `None` where there are none.
fn read_exif(content: &Content) -> Result<Option<Pairs>, Wrong> {
    let mut reader = exif::Reader::new();
    let read = reader.continue_on_error(true).read_from_container(&mut BufReader::new(Bounded::of(content)));
    // What can be understood counts.
    let exif = match read.or_else(|error| error.distill_partial_result(|_| {})) {
        Ok(exif) => exif,
        // Formats without EXIF are no formats that can be understood.
        Err(exif::Error::NotFound(_) | exif::Error::InvalidFormat("Unknown image format")) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let fields = exif.fields().filter(|field| field.ifd_num == In::PRIMARY && field.tag != Tag::MakerNote);
    let pairs = fields.filter_map(|field| {
        let value = match &field.value {
            Value::Ascii(texts) => texts.iter().map(|text| String::from_utf8_lossy(text)).collect::<Vec<_>>().join(", "),
            _ => field.display_value().with_unit(&exif).to_string(),
        };
        let value = value.trim().to_string();
        (!value.is_empty() && value.len() <= LONGEST_VALUE).then(|| (field.tag.to_string(), value))
    });
    Ok(Some(pairs.collect()))
}

#[cfg(test)]
mod tests {
    use exif::experimental::Writer;
    use exif::{Context, Field};

    use super::super::content::tests::learnt_by;
    use super::*;

    fn learnt(bytes: &[u8]) -> (Result<Annotation, String>, usize) {
        learnt_by(learn, bytes)
    }

    /// A JPEG of 640 by 480 with these segments before the one that tells the size.
    fn jpeg(segments: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = vec![0xff, 0xd8];
        let size = vec![
            8,
            480u16.to_be_bytes()[0],
            480u16.to_be_bytes()[1],
            640u16.to_be_bytes()[0],
            640u16.to_be_bytes()[1],
            1,
            1,
            0x11,
            0,
        ];
        for (marker, segment) in segments.iter().chain([&(0xc0, size)]) {
            bytes.extend([0xff, *marker]);
            bytes.extend(u16::try_from(segment.len() + 2).unwrap().to_be_bytes());
            bytes.extend(segment);
        }
        bytes.extend([0xff, 0xd9]);
        bytes
    }

    fn exif_segment() -> Vec<u8> {
        let fields = [
            (Tag::Make, Value::Ascii(vec![b"Tarn".to_vec()])),
            (Tag::Orientation, Value::Short(vec![6])),
            (Tag::FocalLength, Value::Rational(vec![(50, 1).into()])),
            (Tag::MakerNote, Value::Undefined(vec![1, 2, 3], 0)),
            (Tag(Context::Exif, 0xffff), Value::Undefined(vec![7; 4000], 0)),
        ];
        let fields = fields.map(|(tag, value)| Field { tag, ifd_num: In::PRIMARY, value });
        let mut writer = Writer::new();
        fields.iter().for_each(|field| writer.push_field(field));
        let mut written = std::io::Cursor::new(Vec::new());
        writer.write(&mut written, false).unwrap();
        [b"Exif\0\0".to_vec(), written.into_inner()].concat()
    }

    #[test]
    fn images_with_and_without_exif() {
        let end = b"\0\0\0\0\0\0\0\0IEND\0\0\0\0";
        let png =
            [&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], &123u32.to_be_bytes(), &321u32.to_be_bytes(), &[8, 6, 0, 0, 0], end].concat();
        let found = learnt(&png).0.unwrap();
        assert_eq!((found.image_width, found.image_height, found.exif), (Some(123), Some(321), None));

        let found = learnt(&jpeg(&[(0xe1, exif_segment())])).0.unwrap();
        assert_eq!((found.image_width, found.image_height), (Some(640), Some(480)));
        let exif = found.exif.unwrap();
        assert_eq!(exif["Make"], "Tarn");
        assert_eq!(exif["FocalLength"], "50 mm");
        assert!(exif["Orientation"].contains("row 0"), "{exif:?}");
        assert_eq!(exif.len(), 3, "{exif:?}");

        let gif = [&b"GIF89a"[..], &16u16.to_le_bytes(), &9u16.to_le_bytes(), &[0; 20]].concat();
        let found = learnt(&gif).0.unwrap();
        assert_eq!((found.image_width, found.image_height, found.exif), (Some(16), Some(9), None));
        assert_eq!(learnt(b"no image").0.unwrap(), Annotation::default());
    }

    #[test]
    fn of_a_large_image_not_all_is_read() {
        // A TIFF, with its fields behind everything.
        let size = 40 * 1024 * 1024u32;
        let mut tiff = [b"II*\0".as_slice(), &(size - 4).to_le_bytes()].concat();
        tiff.resize(size as usize, 0);
        let (found, reads) = learnt(&tiff);
        assert!(found.is_err());
        assert!(reads < 20, "{reads}");
    }

    #[test]
    fn what_is_far_behind_is_found_and_what_is_cut_is_told() {
        let segments: Vec<(u8, Vec<u8>)> = (0..40).map(|_| (0xe2, vec![7; 60_000])).collect();
        let (found, reads) = learnt(&jpeg(&segments));
        assert_eq!(found.unwrap().image_width, Some(640));
        assert!(reads < 60, "{reads}");
        assert!(learnt(&jpeg(&[(0xe1, exif_segment())])[..40]).0.is_err());
    }
}
