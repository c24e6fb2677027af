# SPDX-License-Identifier: Apache-2.0
"""A learner's disposable machine, from claim to clean-up."""
