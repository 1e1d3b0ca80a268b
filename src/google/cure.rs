//! Cures for Google's refusals, chosen by words in the message. The words choose a hint and nothing else.

/// Lower-case words that must all be in the message, and the cure for it.
struct Words {
    all: &'static [&'static str],
    cure: &'static str,
}

const WORDS: &[Words] = &[
    // The Security Token Service, from reports of users.
    Words {
        all: &["stale to sign-in"],
        cure: "Google takes an identity token soon after it was issued: use a source that mints anew (`safeconduct whoami` says whether it does)",
    },
    Words {
        all: &["audience", "does not match the expected audience"],
        cure: "the provider in the pool allows other audiences: set `subject_audience` to one of its allowed audiences, or leave them at their default, the provider's own name after `https:`",
    },
    Words {
        all: &["invalid value for \"audience\""],
        cure: "`pool` must be the full name of the workload identity provider, with the number of the project and not its name",
    },
    Words {
        all: &["target service indicated by the \"audience\" parameters is invalid"],
        cure: "there is no such provider, or it or its pool is disabled or deleted: compare `pool` with `gcloud iam workload-identity-pools providers describe`, with the number of the project and not its name",
    },
    Words {
        all: &["rejected by the attribute condition"],
        cure: "the provider's attribute condition lets in others: compare it with the claims that `safeconduct whoami` shows",
    },
    Words {
        all: &["google.subject", "127"],
        cure: "the subject is longer than the 127 bytes that Google takes: map `google.subject` to a shorter claim in the provider",
    },
    Words {
        all: &["connecting to the given credential's issuer"],
        cure: "Google must be able to read the issuer's keys: its discovery document must be public, or upload its JWKS to the provider",
    },
    Words {
        all: &["issuer in id token", "does not match"],
        cure: "the provider trusts another issuer: compare its `issuerUri` with `iss` of `safeconduct whoami`",
    },
    // The Service Account Credentials API. The message names the missing permission.
    Words {
        all: &["iam.serviceaccounts.getopenidtoken"],
        cure: "grant this principal roles/iam.workloadIdentityUser (a pool's) or roles/iam.serviceAccountOpenIdTokenCreator (an account's) on the service account, and check that there is an account of that email",
    },
    Words {
        all: &["iam.serviceaccounts.getaccesstoken"],
        cure: "grant this principal roles/iam.workloadIdentityUser (a pool's) or roles/iam.serviceAccountTokenCreator (an account's) on the service account, and check that there is an account of that email",
    },
    Words {
        all: &["iam.serviceaccounts.implicitdelegation"],
        cure: "grant each service account in `delegates` roles/iam.serviceAccountTokenCreator on the next one, the last on `service_account`",
    },
    Words {
        all: &["insufficient authentication scopes"],
        cure: "the access scopes of the instance leave out IAM: give it the scope cloud-platform and limit it by roles",
    },
    Words {
        all: &["has not been used in project"],
        cure: "switch the API on in that project: `gcloud services enable iamcredentials.googleapis.com`",
    },
    Words { all: &["gaia id not found"], cure: "there is no service account of that email: check `service_account`" },
    Words {
        all: &["permission_denied"],
        cure: "grant this principal roles/iam.workloadIdentityUser on the service account, and check its email",
    },
    Words {
        all: &["not_found"],
        cure: "there is no service account of that email: check `service_account` and `delegates`",
    },
];

/// The cure for this message, if it is known.
pub(super) fn of(words: &str) -> Option<&'static str> {
    let words = words.to_ascii_lowercase();
    WORDS.iter().find(|one| one.all.iter().all(|word| words.contains(word))).map(|one| one.cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_can_be_reached() {
        for (at, words) in WORDS.iter().enumerate() {
            assert!(words.all.iter().all(|word| word.to_ascii_lowercase() == **word), "{:?} is never found", words.all);
            let text = words.all.join(" … ");
            assert_eq!(of(&text), Some(WORDS[at].cure), "{:?} hides behind another", words.all);
        }
        assert_eq!(of("something else"), None);
    }
}
