"""A workload's token by its cloud's own client library: `clouds.py CLOUD AUDIENCE`, with the cloud's own variables set.
For `google_account` the second is an `external_account` file.

Prints the token and nothing else. Nothing here knows that the cloud is a fake.
"""

import sys


def google(audience):
    from google.auth.transport.requests import Request
    from google.oauth2.id_token import fetch_id_token

    return fetch_id_token(Request(), audience)


def google_account(file):
    import json

    from google.auth import aws, identity_pool
    from google.auth.transport.requests import Request

    # google.auth.default() chooses the same class, but also looks up the project.
    with open(file) as content:
        kind = aws if "environment_id" in json.load(content)["credential_source"] else identity_pool
    credentials = kind.Credentials.from_file(file, scopes=["https://www.googleapis.com/auth/cloud-platform"])
    credentials.refresh(Request())
    return credentials.token


def aws(audience):
    import botocore.session

    sts = botocore.session.get_session().create_client("sts")
    answer = sts.get_web_identity_token(Audience=[audience], SigningAlgorithm="RS256", DurationSeconds=300)
    return answer["WebIdentityToken"]


def azure(audience):
    from azure.identity import ManagedIdentityCredential

    return ManagedIdentityCredential().get_token(audience + "/.default").token


clouds = {"google": google, "google_account": google_account, "aws": aws, "azure": azure}
print(clouds[sys.argv[1]](sys.argv[2]))
