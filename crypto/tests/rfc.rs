//! Known answers of the primitives underneath: RFC 8032 and RFC 9180. A dependency that changes meaning fails here first.

use std::convert::Infallible;

use ed25519_dalek::{Signer, SigningKey};
use hpke::{
    Deserializable, Kem as _, OpModeR, OpModeS, Serializable,
    aead::ChaCha20Poly1305,
    kdf::HkdfSha256,
    kem::X25519HkdfSha256 as Kem,
    rand_core::{TryCryptoRng, TryRng},
};
use murmur_crypto::keys::{IdentityKey, PrekeyPublic, PrekeySecret, PublicKey};

#[expect(clippy::unwrap_used, reason = "the RFCs print whole bytes")]
fn hex<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

/// RFC 8032 §7.1: seed, public key, message, signature.
const ED25519: [(&str, &str, &str, &str); 3] = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
];

#[test]
fn ed25519_answers_as_rfc_8032_says() {
    for (seed, public, message, signature) in ED25519 {
        let (message, signature) = (hex::decode(message).unwrap(), hex::<64>(signature));
        let key = PublicKey::from_bytes(&hex(public)).unwrap();
        assert_eq!(IdentityKey::from_seed(&hex(seed)).public(), key);
        assert_eq!(SigningKey::from_bytes(&hex(seed)).sign(&message).to_bytes(), signature);
        assert!(key.verifies(&message, &signature));
        assert!(!key.verifies(b"another message", &signature));
    }
}

/// Gives HPKE the `ikmE` of the RFC.
struct IkmE([u8; 32]);

impl TryRng for IkmE {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("HPKE draws its key material in one piece")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("HPKE draws its key material in one piece")
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        dst.copy_from_slice(&self.0);
        Ok(())
    }
}

impl TryCryptoRng for IkmE {}

/// RFC 9180 A.2.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, base mode.
const INFO: &str = "4f6465206f6e2061204772656369616e2055726e";
const IKM_E: &str = "909a9b35d3dc4713a5e72a4da274b55d3d3821a37e5d099e74a647db583a904b";
const ENC: &str = "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a";
const IKM_R: &str = "1ac01f181fdf9f352797655161c58b75c656a6cc2716dcb66372da835542e1df";
const SK_R: &str = "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb";
const PK_R: &str = "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a";
const PLAINTEXT: &str = "4265617574792069732074727574682c20747275746820626561757479";
/// Associated data and ciphertext of the first two messages.
const MESSAGES: [(&str, &str); 2] = [
    ("436f756e742d30", "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"),
    ("436f756e742d31", "6b53c051e4199c518de79594e1c4ab18b96f081549d45ce015be002090bb119e85285337cc95ba5f59992dc98c"),
];
/// Exporter context and exported value.
const EXPORTS: [(&str, &str); 3] = [
    ("", "4bbd6243b8bb54cec311fac9df81841b6fd61f56538a775e7c80a9f40160606e"),
    ("00", "8c1df14732580e5501b00f82b10a1647b40713191b7c1240ac80e2b68808ba69"),
    ("54657374436f6e74657874", "5acb09211139c43b3090489a9da433e8a30ee7188ba8b0a9a1ccf0c229283e53"),
];

#[test]
fn hpke_answers_as_rfc_9180_says() {
    let secret = PrekeySecret::derive(&hex(IKM_R));
    assert_eq!(secret.public(), PrekeyPublic::from_bytes(&hex(PK_R)).unwrap());
    assert_eq!(PrekeySecret::from_bytes(&hex(SK_R)).public(), secret.public());

    let info = hex::decode(INFO).unwrap();
    let (secret, public) = Kem::derive_keypair(&hex::<32>(IKM_R));
    let mut rng = IkmE(hex(IKM_E));
    let (enc, mut sender) =
        hpke::setup_sender_with_rng::<ChaCha20Poly1305, HkdfSha256, Kem>(&OpModeS::Base, &public, &info, &mut rng)
            .unwrap();
    assert_eq!(enc.to_bytes().as_slice(), hex::<32>(ENC));
    let enc = <Kem as hpke::Kem>::EncappedKey::from_bytes(&hex::<32>(ENC)).unwrap();
    let mut receiver =
        hpke::setup_receiver::<ChaCha20Poly1305, HkdfSha256, Kem>(&OpModeR::Base, &secret, &enc, &info).unwrap();

    let plaintext = hex::decode(PLAINTEXT).unwrap();
    for (aad, ciphertext) in MESSAGES {
        let (aad, ciphertext) = (hex::decode(aad).unwrap(), hex::decode(ciphertext).unwrap());
        assert_eq!(sender.seal(&plaintext, &aad).unwrap(), ciphertext);
        assert_eq!(receiver.open(&ciphertext, &aad).unwrap(), plaintext);
    }
    for (context, value) in EXPORTS {
        let mut exported = [[0; 32]; 2];
        sender.export(&hex::decode(context).unwrap(), &mut exported[0]).unwrap();
        receiver.export(&hex::decode(context).unwrap(), &mut exported[1]).unwrap();
        assert_eq!(exported, [hex(value); 2]);
    }
}
