# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""What the phpIPAM modules' documentation has in common: the options of module_utils/phpipam_options.py."""

from __future__ import annotations


class ModuleDocFragment:
    """Ansible puts it into the documentation of each module that extends it."""

    DOCUMENTATION = r"""
options:
  url:
    description:
      - Address of phpIPAM, for instance C(https://ipam.example.org), without C(/api). Redirects are not followed.
      - Without it the environment's E(PHPIPAM_URL).
    type: str
    required: true
  app_id:
    description: Name of an API app with the permission Read / Write. Without it the environment's E(PHPIPAM_APP_ID).
    type: str
    required: true
  app_code:
    description:
      - The app's code, of 32 characters at most, when its security is I(SSL with App code token).
      - Without it, and without O(username), the environment's E(PHPIPAM_APP_CODE).
    type: str
  username:
    description:
      - A user to log in as, when the app's security is I(SSL with User token).
      - Whoever can log in to phpIPAM has all rights of such an app, so O(app_code) is the safer way.
    type: str
  password:
    description: That user's password.
    type: str
  timeout:
    description: How long one try waits for an answer, in seconds. phpIPAM itself waits up to 30 s for its lock.
    type: int
    default: 45
  validate_certs:
    description: Whether to check phpIPAM's certificate.
    type: bool
    default: true
  ca_path:
    description: File with the certificate authorities to check it with; the system's when left out.
    type: path
  behind_proxy:
    description:
      - Whether O(url) is phpIPAM behind its proxy, on a network of this host, and asked as the proxy asks it, with
        C(https) in C(X-Forwarded-Proto). phpIPAM has to trust that (C(IPAM_TRUST_X_FORWARDED)); by plain
        http it refuses its API.
      - The app's code is then sent in the clear, so never across another network.
    type: bool
    default: false
"""
