"""Cross-validation: each fold is a member that has not seen the rows it is tested on."""
