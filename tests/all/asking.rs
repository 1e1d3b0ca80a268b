//! Asks for a token of the server `demo`, whose configuration has further keys.

use support::safeconduct::Output;
use support::scene::Scene;

pub(crate) async fn token(scene: &Scene, keys: &str) -> Output {
    scene.configured(keys).run(&["token", "demo"]).await
}

/// Expects this exit code, an error message with these words, and a hint.
pub(crate) async fn refused(scene: &Scene, keys: &str, code: i32, words: &[&str]) {
    let output = token(scene, keys).await.expect_code(code);
    for word in words {
        assert!(output.stderr.contains(word), "{word:?} in {}", output.stderr);
    }
    assert!(output.stderr.contains("safeconduct: hint: "), "{}", output.stderr);
}
