use std::sync::LazyLock;

use infer::Infer;

pub(super) const PARQUET: &str = "application/vnd.apache.parquet";

/// What neither has a known beginning nor is text.
pub(super) const OTHER: &str = "application/octet-stream";

const TEXT: &str = "text/plain";

/// Formats of tables, which `infer` does not know.
static INFER: LazyLock<Infer> = LazyLock::new(|| {
    let mut infer = Infer::new();
    infer.add(PARQUET, "parquet", |bytes| bytes.starts_with(b"PAR1") || bytes.starts_with(b"PARE"));
    infer.add("application/vnd.apache.arrow.file", "arrow", |bytes| bytes.starts_with(b"ARROW1"));
    infer.add("application/avro", "avro", |bytes| bytes.starts_with(b"Obj\x01"));
    infer.add("application/x-orc", "orc", |bytes| bytes.starts_with(b"ORC"));
    infer
});

/// What a content is by its first bytes; `None` for what is empty.
pub(super) fn media_type(head: &[u8]) -> Option<&'static str> {
    if head.is_empty() {
        return None;
    }
    let known = INFER.get(head).map(|found| found.mime_type());
    Some(known.unwrap_or_else(|| if is_text(head) { TEXT } else { OTHER }))
}

/// Whether it may be text in some encoding: text in those of one to four bytes has no control characters but a few, and that in others
/// says what it is.
pub(super) fn is_text(head: &[u8]) -> bool {
    let is_control = |byte: &u8| *byte < 0x20 && !b"\t\n\r\x08\x0c\x1b".contains(byte) || *byte == 0x7f;
    head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) || !head.iter().any(is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_by_the_first_bytes() {
        for (head, media_type) in [
            (&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], "image/png"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
            (b"%PDF-1.7", "application/pdf"),
            (b"PK\x03\x04\0\0", "application/zip"),
            (b"PAR1\x15\x04", PARQUET),
            (b"ARROW1\0\0", "application/vnd.apache.arrow.file"),
            (b"Obj\x01\x04", "application/avro"),
            (b"ORC\x0a", "application/x-orc"),
            (b"<!DOCTYPE html><html>", "text/html"),
            (b"a,b\n1,2\n", TEXT),
            ("Grüße".as_bytes(), TEXT),
            (b"Gr\xfc\xdfe", TEXT),
            (b"\xff\xfea\0\n\0", TEXT),
            (b"\0\x01\x02", OTHER),
        ] {
            assert_eq!(super::media_type(head), Some(media_type), "{head:?}");
        }
        assert_eq!(media_type(b""), None);
    }
}
