//! The keys an archive may be signed with.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use pgp::composed::{Deserializable, DetachedSignature, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::KeyDetails;

use super::clearsign;
use crate::digest::{Digest, Hasher};

/// Keys of the Debian archive: the current and the previous stable release's.
const DEBIAN: [&[u8]; 6] = [
    include_bytes!("keys/trixie-automatic.gpg"),
    include_bytes!("keys/trixie-stable.gpg"),
    include_bytes!("keys/trixie-security-automatic.gpg"),
    include_bytes!("keys/bookworm-automatic.gpg"),
    include_bytes!("keys/bookworm-stable.gpg"),
    include_bytes!("keys/bookworm-security-automatic.gpg"),
];

/// Identifies [`DEBIAN`], as [`fingerprints`] does: a start whose indexes were all verified before needs no more of the
/// keys, and reading them takes longer than all else that such a start does about packages.
const DEBIAN_DIGEST: &str = "sha256:bb10ca15ca5c9464c1fcb8288fd7bc60c77de1f954025933544396cb86f25143";

/// Largest signed index. Debian's are about 150 KiB.
pub(crate) const MAX_INRELEASE: u64 = 16 << 20;
/// Most signatures that are looked at; Debian's indexes carry three.
const MAX_SIGNATURES: usize = 16;

/// A set of OpenPGP certificates.
#[derive(Clone, Debug)]
pub struct Keyring {
    /// Debian's are read when they are first needed.
    certificates: OnceLock<Vec<SignedPublicKey>>,
    digest: Digest,
}

impl Keyring {
    /// The Debian archive's own keys.
    pub fn debian() -> Keyring {
        let digest = DEBIAN_DIGEST.parse();
        Keyring {
            certificates: OnceLock::new(),
            digest: digest.unwrap_or_else(|_| fingerprints(&read_debian())),
        }
    }

    /// The keys of one or more certificates, ASCII-armored or binary; what is wrong if there is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Keyring, String> {
        let armored = bytes.trim_ascii_start().starts_with(b"-----BEGIN");
        let certificates: Result<Vec<SignedPublicKey>, pgp::errors::Error> = if armored {
            SignedPublicKey::from_armor_many(bytes).and_then(|(certificates, _)| certificates.collect())
        } else {
            SignedPublicKey::from_bytes_many(bytes).and_then(Iterator::collect)
        };
        let certificates = certificates.map_err(|error| error.to_string())?;
        if certificates.is_empty() {
            return Err("there is no key in it".into());
        }
        Ok(Keyring {
            digest: fingerprints(&certificates),
            certificates: certificates.into(),
        })
    }

    /// Identifies the set of keys.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    fn certificates(&self) -> &[SignedPublicKey] {
        self.certificates.get_or_init(read_debian)
    }

    /// The signed text of a clear-signed message (RFC 9580, section 7) that one of the keys signed; nothing
    /// may stand before or after it. `now` is in seconds since 1970.
    pub(crate) fn open(&self, message: &str, now: i64) -> Result<String, String> {
        let message = clearsign::read(message)?;
        let unreadable = |error: pgp::errors::Error| {
            format!(
                "its signature cannot be read: {}",
                single_line(&error.to_string())
            )
        };
        let (signatures, _) = DetachedSignature::from_string_many(message.signatures).map_err(unreadable)?;
        let signatures: Vec<DetachedSignature> = signatures
            .take(MAX_SIGNATURES)
            .collect::<Result<_, _>>()
            .map_err(unreadable)?;
        if signatures.is_empty() {
            return Err("it carries no signature".into());
        }
        let text = message.text;
        let mut problems = BTreeSet::new();
        for DetachedSignature { signature } in &signatures {
            match self.check(signature, text.as_bytes(), now) {
                Ok(()) => return Ok(text),
                Err(problem) => problems.insert(problem),
            };
        }
        Err(problems.into_iter().collect::<Vec<_>>().join("; "))
    }

    fn check(&self, signature: &Signature, text: &[u8], now: i64) -> Result<(), String> {
        let strong = [
            HashAlgorithm::Sha256,
            HashAlgorithm::Sha384,
            HashAlgorithm::Sha512,
        ];
        if signature.typ() != Some(SignatureType::Text) {
            return Err("it is not a signature of text".into());
        }
        if !signature.hash_alg().is_some_and(|hash| strong.contains(&hash)) {
            return Err("its hash is too weak".into());
        }
        let created = signature
            .created()
            .map(|time| i64::from(time.as_secs()))
            .ok_or("it has no date")?;
        if outlived(
            created,
            signature.signature_expiration_time().map(|time| time.as_secs()),
            now,
        ) {
            return Err("the signature has expired".into());
        }
        let mut known = false;
        for certificate in self.certificates() {
            let (matches, good) = check_with(certificate, signature, text, created);
            known |= matches;
            if good {
                return Ok(());
            }
        }
        if known {
            return Err("a known key's signature does not fit the text".into());
        }
        let keys: Vec<String> = signature
            .issuer_fingerprint()
            .iter()
            .map(|key| key.to_string().to_uppercase())
            .collect();
        let keys = if keys.is_empty() {
            "nobody known".into()
        } else {
            keys.join(", ")
        };
        Err(format!("the key {keys} is not one of the Debian archive's"))
    }
}

fn read_debian() -> Vec<SignedPublicKey> {
    let read = |bytes: &&[u8]| SignedPublicKey::from_bytes(*bytes).ok();
    DEBIAN.iter().filter_map(read).collect()
}

/// A digest of the fingerprints of all primary keys.
fn fingerprints(certificates: &[SignedPublicKey]) -> Digest {
    let mut hasher = Hasher::default();
    for certificate in certificates {
        hasher.update(certificate.primary_key.fingerprint().as_bytes());
    }
    hasher.finish()
}

/// Whether a certificate has the signature's key, and whether it made the signature while it was valid.
fn check_with(
    certificate: &SignedPublicKey,
    signature: &Signature,
    text: &[u8],
    created: i64,
) -> (bool, bool) {
    let primary = &certificate.primary_key;
    let mut matches = false;
    if signed_by(signature, primary) {
        matches = true;
        let self_signatures = || certificate.details.users.iter().flat_map(|user| &user.signatures);
        let lifetime = self_signatures()
            .filter_map(|own| own.key_expiration_time().map(|time| time.as_secs()))
            .max();
        let alive = !outlived(i64::from(primary.created_at().as_secs()), lifetime, created);
        let revoked = !certificate.details.revocation_signatures.is_empty();
        if alive && !revoked && signature.verify(primary, text).is_ok() {
            return (true, true);
        }
    }
    for subkey in certificate
        .public_subkeys
        .iter()
        .filter(|subkey| signed_by(signature, &subkey.key))
    {
        matches = true;
        let signing = subkey.signatures.iter().any(|binding| binding.key_flags().sign());
        let lifetime = subkey
            .signatures
            .iter()
            .filter_map(|binding| binding.key_expiration_time().map(|time| time.as_secs()))
            .max();
        let alive = !outlived(i64::from(subkey.key.created_at().as_secs()), lifetime, created);
        let revoked = subkey
            .signatures
            .iter()
            .any(|binding| binding.typ() == Some(SignatureType::SubkeyRevocation));
        if signing
            && alive
            && !revoked
            && subkey.verify_bindings(primary).is_ok()
            && signature.verify(&subkey.key, text).is_ok()
        {
            return (true, true);
        }
    }
    (matches, false)
}

fn signed_by(signature: &Signature, key: &impl KeyDetails) -> bool {
    let (id, fingerprint) = (key.legacy_key_id(), key.fingerprint());
    signature.issuer_fingerprint().contains(&&fingerprint) || signature.issuer_key_id().contains(&&id)
}

/// Whether something made at `created` with a lifetime in seconds is over at `now`; zero means for ever.
fn outlived(created: i64, lifetime: Option<u32>, now: i64) -> bool {
    lifetime.is_some_and(|lifetime| lifetime != 0 && now > created + i64::from(lifetime))
}

fn single_line(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyring_debian_has_every_bundled_key_bound_to_itself() {
        let keyring = Keyring::debian();
        assert_eq!(keyring.certificates().len(), DEBIAN.len());
        for certificate in keyring.certificates() {
            for subkey in &certificate.public_subkeys {
                subkey.verify_bindings(&certificate.primary_key).unwrap();
            }
        }
    }

    #[test]
    fn keyring_debian_digest_is_that_of_its_keys() {
        assert_eq!(Keyring::debian().digest(), fingerprints(&read_debian()));
    }

    #[test]
    fn keyring_from_bytes_without_a_key_is_refused() {
        assert!(Keyring::from_bytes(b"").is_err());
        assert!(Keyring::from_bytes(b"-----BEGIN PGP PUBLIC KEY BLOCK-----").is_err());
        assert!(Keyring::from_bytes(b"\x99junk").is_err());
        assert!(Keyring::from_bytes(DEBIAN[0]).is_ok());
    }
}
