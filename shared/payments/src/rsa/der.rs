//! As much DER as it takes to find two things in an X.509 certificate (RFC 5280, section 4.1).

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT Version`.
const VERSION: u8 = 0xa0;

/// The serial number, without the zero that keeps it positive, and the SubjectPublicKeyInfo.
pub(super) fn certificate(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let certificate = contents(SEQUENCE, &mut { der })?;
    let mut tbs = contents(SEQUENCE, &mut { certificate })?;
    if tbs.first() == Some(&VERSION) {
        contents(VERSION, &mut tbs)?;
    }
    let serial = contents(INTEGER, &mut tbs)?;
    let serial = serial.strip_prefix(&[0]).unwrap_or(serial);
    // The signature's algorithm, issuer, validity and subject.
    for _ in 0..4 {
        contents(SEQUENCE, &mut tbs)?;
    }
    let start = tbs;
    contents(SEQUENCE, &mut tbs)?;
    Some((serial, &start[..start.len() - tbs.len()]))
}

/// The contents of the next element, which has to have this tag; `rest` is moved behind it.
fn contents<'d>(tag: u8, rest: &mut &'d [u8]) -> Option<&'d [u8]> {
    let (&[found, first], after) = rest.split_first_chunk::<2>()?;
    let (length, after) = match first {
        ..=0x7f => (usize::from(first), after),
        // Up to 64 KiB: certificates are far smaller.
        0x81 => after.split_first_chunk::<1>().map(|(&[length], after)| (usize::from(length), after))?,
        0x82 => after.split_first_chunk().map(|(&length, after)| (usize::from(u16::from_be_bytes(length)), after))?,
        _ => return None,
    };
    let (contents, behind) = after.split_at_checked(length)?;
    *rest = behind;
    (found == tag).then_some(contents)
}
