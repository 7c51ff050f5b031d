//! The one TLS provider of this program. reqwest is built without one, so that all rustls users share `ring`.

/// Makes `ring` the TLS provider of this process. Must run before the first HTTP client is built; calling it again
/// does nothing.
pub fn install_crypto_provider() {
    // An error says that a provider is installed already: that is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
