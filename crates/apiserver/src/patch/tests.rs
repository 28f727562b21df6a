//! Cases of `patch`: text in, observable result out.
