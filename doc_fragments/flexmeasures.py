# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""What the FlexMeasures modules' documentation has in common: the options of module_utils/flexmeasures_options.py."""

from __future__ import annotations


class ModuleDocFragment:
    """Ansible puts it into the documentation of each module that extends it."""

    DOCUMENTATION = r"""
options:
  url:
    description:
      - Scheme, host and port of the FlexMeasures server itself, for instance C(http://192.168.240.20:5000).
      - Proxies, netrc files and redirects are not followed, so that neither token nor password reaches anybody else.
    type: str
    required: true
  token:
    description:
      - Content of the secret that our plugin reads from C(CARIFLEX_TOPOLOGY_TOKEN_FILE). The way through our plugin.
      - One of O(token) and O(email) is needed. With both, FlexMeasures' own API is used where the plugin is not loaded.
    type: str
  email:
    description:
      - A user of FlexMeasures with the role C(account-admin) or C(admin). The way through FlexMeasures' own API.
      - A token is got with the password, and another one when that has ended.
    type: str
  password:
    description: That user's password.
    type: str
  host_header:
    description: Name to ask for, when the address in O(url) is none of the server's C(TRUSTED_HOSTS).
    type: str
  timeout:
    description: How long one try waits for an answer, in seconds.
    type: int
    default: 60
  validate_certs:
    description: Whether to check the server's certificate when O(url) is https.
    type: bool
    default: true
  ca_path:
    description: File with the certificate authorities to check it with; the system's when left out.
    type: path
"""
