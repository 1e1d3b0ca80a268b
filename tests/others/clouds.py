"""A workload's token by its cloud's own client library: `clouds.py CLOUD AUDIENCE`, with the cloud's own variables set.

Prints the token and nothing else. Nothing here knows that the cloud is a fake.
"""

import sys


def google(audience):
    from google.auth.transport.requests import Request
    from google.oauth2.id_token import fetch_id_token

    return fetch_id_token(Request(), audience)


def aws(audience):
    import botocore.session

    sts = botocore.session.get_session().create_client("sts")
    answer = sts.get_web_identity_token(Audience=[audience], SigningAlgorithm="RS256", DurationSeconds=300)
    return answer["WebIdentityToken"]


def azure(audience):
    from azure.identity import ManagedIdentityCredential

    return ManagedIdentityCredential().get_token(audience + "/.default").token


print({"google": google, "aws": aws, "azure": azure}[sys.argv[1]](sys.argv[2]))
