"""Everything a platform's technical pack says, as data: names, places, words, units, limits, plans."""

from bridge.profile.load import AUTHENTICATE, Profile, load_profile, parse_profile, shipped_profiles
from bridge.profile.model import Limits, ProfileSpec
from bridge.profile.places import Place, PlaceKind
from bridge.profile.words import (
    AlignBy,
    AnswersSigned,
    AnswerWord,
    CertificateForm,
    ErrorSeverity,
    FreshnessMode,
    MessageKind,
    ReturnResult,
    Returns,
    Semantics,
    Shape,
    SignatureForm,
    StatusWord,
    TimeForm,
    WireType,
)

__all__ = [
    "AUTHENTICATE",
    "AlignBy",
    "AnswerWord",
    "AnswersSigned",
    "CertificateForm",
    "ErrorSeverity",
    "FreshnessMode",
    "Limits",
    "MessageKind",
    "Place",
    "PlaceKind",
    "Profile",
    "ProfileSpec",
    "ReturnResult",
    "Returns",
    "Semantics",
    "Shape",
    "SignatureForm",
    "StatusWord",
    "TimeForm",
    "WireType",
    "load_profile",
    "parse_profile",
    "shipped_profiles",
]
