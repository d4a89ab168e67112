use std::io::Read;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{CoderResult, Decoder, UTF_8, UTF_16BE, UTF_16LE};

use super::content::Content;
use super::media::is_text;
use super::{Annotation, Wrong};

/// The lines of what is longer are not counted.
const LONGEST: u64 = 1024 * 1024 * 1024;

/// Bytes by which an encoding is guessed, where it is not UTF-8.
const GUESSED_BY: usize = 1024 * 1024;

/// Bytes that are counted at once.
const AT_ONCE: usize = 256 * 1024;

/// The encoding and the number of lines of a text.
pub(super) fn learn(content: &Content, annotation: &mut Annotation) -> Result<(), Wrong> {
    let head = content.head();
    if head.is_empty() || !is_text(head) || content.media_type().is_some_and(is_of_bytes) {
        return Ok(());
    }
    if content.size() > LONGEST {
        return Err(format!("the lines of more than {LONGEST} bytes are not counted").into());
    }
    let mut lines = if head.starts_with(&[0xff, 0xfe]) {
        Lines::wide(UTF_16LE.new_decoder_with_bom_removal(), "UTF-16LE")
    } else if head.starts_with(&[0xfe, 0xff]) {
        Lines::wide(UTF_16BE.new_decoder_with_bom_removal(), "UTF-16BE")
    } else {
        Lines::narrow()
    };
    let (mut content, mut bytes) = (content.clone(), vec![0; AT_ONCE]);
    loop {
        let read = content.read(&mut bytes)?;
        let Some(some) = bytes.get(..read).filter(|some| !some.is_empty()) else { break };
        lines.add(some);
    }
    annotation.text_lines = Some(i64::try_from(lines.count + u64::from(lines.is_open))?);
    annotation.text_encoding = Some(lines.encoding().to_string());
    Ok(())
}

/// Formats whose beginnings may look like text.
fn is_of_bytes(media_type: &str) -> bool {
    ["image/", "audio/", "video/", "font/"].iter().any(|kind| media_type.starts_with(kind)) || media_type == "application/pdf"
}

/// The lines of a text that is read in parts.
struct Lines {
    count: u64,
    /// The last line has no end.
    is_open: bool,
    kind: Kind,
}

enum Kind {
    /// A line ends with one byte. The decoder is there as long as it is UTF-8.
    Narrow { utf_8: Option<Decoder>, is_ascii: bool, detector: Box<EncodingDetector>, fed: usize },
    /// Two bytes are a character, or a half of one.
    Wide { decoder: Decoder, name: &'static str },
}

impl Lines {
    fn wide(decoder: Decoder, name: &'static str) -> Self {
        Self { count: 0, is_open: false, kind: Kind::Wide { decoder, name } }
    }

    fn narrow() -> Self {
        let detector = Box::new(EncodingDetector::new(Iso2022JpDetection::Deny));
        let kind = Kind::Narrow { utf_8: Some(UTF_8.new_decoder_with_bom_removal()), is_ascii: true, detector, fed: 0 };
        Self { count: 0, is_open: false, kind }
    }

    fn add(&mut self, bytes: &[u8]) {
        match &mut self.kind {
            Kind::Narrow { utf_8, is_ascii, detector, fed } => {
                *is_ascii &= bytes.is_ascii();
                if !*is_ascii && utf_8.as_mut().is_some_and(|decoder| !decodes(decoder, bytes, |_| {})) {
                    *utf_8 = None;
                }
                if *fed < GUESSED_BY && !bytes.is_ascii() {
                    detector.feed(bytes, false);
                    *fed += bytes.len();
                }
                self.count += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.is_open = bytes.last() != Some(&b'\n');
            }
            Kind::Wide { decoder, .. } => {
                let (count, is_open) = (&mut self.count, &mut self.is_open);
                decodes(decoder, bytes, |text| {
                    *count += text.bytes().filter(|byte| *byte == b'\n').count() as u64;
                    *is_open = text.bytes().last().map_or(*is_open, |byte| byte != b'\n');
                });
            }
        }
    }

    fn encoding(&self) -> &'static str {
        match &self.kind {
            Kind::Wide { name, .. } => name,
            Kind::Narrow { is_ascii: true, .. } => "US-ASCII",
            Kind::Narrow { utf_8: Some(_), .. } => UTF_8.name(),
            Kind::Narrow { detector, .. } => detector.guess(None, Utf8Detection::Deny).name(),
        }
    }
}

/// Decodes bytes that go on from those before; whether all of them were of the encoding.
fn decodes(decoder: &mut Decoder, mut bytes: &[u8], mut decoded: impl FnMut(&str)) -> bool {
    let (mut text, mut is_right) = (String::with_capacity(AT_ONCE), true);
    loop {
        text.clear();
        let (result, read, had_errors) = decoder.decode_to_string(bytes, &mut text, false);
        is_right &= !had_errors;
        decoded(&text);
        bytes = bytes.get(read..).unwrap_or_default();
        if result == CoderResult::InputEmpty {
            return is_right;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::content::tests::learnt_by;
    use super::*;

    fn learnt(bytes: &[u8]) -> Option<(i64, String)> {
        let annotation = learnt_by(learn, bytes).0.unwrap();
        annotation.text_lines.zip(annotation.text_encoding)
    }

    #[test]
    fn lines_and_encodings() {
        let wide = |text: &str, big: bool| -> Vec<u8> {
            let units = text.encode_utf16();
            units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
        };
        let german = "Die Größe des Körpers müßte übrigens häufiger überprüft werden, höchstens aber täglich.\n";
        let (latin, _, _) = encoding_rs::WINDOWS_1252.encode(german);
        let (russian, _, _) =
            encoding_rs::WINDOWS_1251.encode("Широкая электрификация южных губерний даст мощный толчок\nподъёму\n");
        let long = "zwölf Boxkämpfer\n".repeat(200_000);
        // An umlaut across the end of what is read at once.
        let across = [vec![b'x'; AT_ONCE - 1], "ü".repeat(AT_ONCE).into_bytes()].concat();
        let late = [vec![b'\n'; 5 * AT_ONCE], latin.to_vec()].concat();
        for (bytes, lines, encoding) in [
            (b"a\nb".to_vec(), 2, "US-ASCII"),
            (b"a\r\nb\r\n".to_vec(), 2, "US-ASCII"),
            (german.as_bytes().to_vec(), 1, "UTF-8"),
            ([b"\xef\xbb\xbf".as_slice(), german.as_bytes()].concat(), 1, "UTF-8"),
            (latin.to_vec(), 1, "windows-1252"),
            (russian.to_vec(), 2, "windows-1251"),
            (wide("\u{feff}a\nü\u{1f408}", false), 2, "UTF-16LE"),
            (wide("\u{feff}a\n\u{0a0d}\n", true), 2, "UTF-16BE"),
            (long.into_bytes(), 200_000, "UTF-8"),
            (across, 1, "UTF-8"),
            (late, 5 * AT_ONCE as i64 + 1, "windows-1252"),
        ] {
            assert_eq!(learnt(&bytes), Some((lines, encoding.to_string())), "{encoding}");
        }
        for none in [&b"\0\x01"[..], b"%PDF-1.7\n", b"\x89PNG\r\n\x1a\n"] {
            assert_eq!(learnt(none), None);
        }
    }
}
