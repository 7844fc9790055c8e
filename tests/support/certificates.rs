//! Certificates as the tests need them: good, of a stranger, expired, of tomorrow.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

/// When a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub enum Validity {
    Now,
    Expired,
    NotYet,
}

/// A certificate and its private key, both PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

/// Who signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        Self::named("the tests' authority")
    }

    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("make a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("sign the authority's certificate"))
    }

    /// Its certificate as PEM.
    pub fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a host, or for a client of this name.
    pub fn issue(&self, name: &str, validity: Validity) -> Identity {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        let (first, last) = match validity {
            Validity::Now => (1975, 4096),
            Validity::Expired => (1975, 2001),
            Validity::NotYet => (4000, 4096),
        };
        params.not_before = date_time_ymd(first, 1, 1);
        params.not_after = date_time_ymd(last, 1, 1);
        let key = KeyPair::generate().expect("make a key");
        let certificate = params.signed_by(&key, &self.0).expect("sign a certificate");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}
