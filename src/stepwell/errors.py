"""The one exception for mistakes that the user can mend."""


class UserError(Exception):
    """One plain sentence: what is wrong, where (file, row, key), what to do.

    The command line prints the sentence and exits with code 2; in a library call it is an
    ordinary exception. Everything else that is raised is a defect of ours.
    """
